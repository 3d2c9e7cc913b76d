"""Show which columns a trained model needs, and how its predictions follow them. See ``--help``."""

from mlp_lightning.commands.inference import explain

if __name__ == "__main__":
    explain()
