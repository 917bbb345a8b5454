"""Fine-tuning on the supervisor's side: data, process trees, checkpoints. Imports no torch."""
