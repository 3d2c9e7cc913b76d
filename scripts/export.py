"""Write a trained model, with its preprocessing, for use elsewhere. See ``--help``."""

from mlp_lightning.commands.inference import export

if __name__ == "__main__":
    export()
