"""Images by diffusion: settings, loading, rows, microbatches, steps, results."""
