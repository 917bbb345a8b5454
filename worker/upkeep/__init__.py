"""CPU-only work that keeps the plant going: a batch's stages, and the periodic passes."""
