"""The commands: training, and inference with a trained model."""
