"""Training a proxy: LoRA runs on chosen rows, their checkpoints, and how the trained model scores."""
