"""Videos put together from pictures, narrations and captions."""
