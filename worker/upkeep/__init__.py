"""CPU-only work that keeps the plant going: a batch's stages, and passes that any number may run."""
