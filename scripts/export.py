"""Write a trained model, with its preprocessing, for use elsewhere. See ``--help``."""

from mlp_lightning.inference_commands import export

if __name__ == "__main__":
    export()
