"""Measure a trained model on a table, or on rows of the run's own data. See ``--help``."""

from mlp_lightning.commands.inference import evaluate

if __name__ == "__main__":
    evaluate()
