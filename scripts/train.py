"""Train a multi-layer perceptron: ``python scripts/train.py model=wide_deep data=xor``; see ``--help``."""

from mlp_lightning.commands.train import main

if __name__ == "__main__":
    main()
