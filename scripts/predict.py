"""Predict the rows of a table of any size. See ``--help``."""

from mlp_lightning.commands.inference import predict

if __name__ == "__main__":
    predict()
