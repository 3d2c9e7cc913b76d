"""Predict the rows of a table of any size. See ``--help``."""

from mlp_lightning.inference_commands import predict

if __name__ == "__main__":
    predict()
