"""Fine-tuning on the training's side: each recipe in one file, run in a process tree of its own."""
