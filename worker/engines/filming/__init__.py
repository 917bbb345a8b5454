"""Videos generated frame by frame by diffusion pipelines."""
