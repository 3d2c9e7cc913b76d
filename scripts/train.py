"""Train a multi-layer perceptron: ``python scripts/train.py model=wide_deep data=xor``; see ``--help``."""

from mlp_lightning.command_line import main

if __name__ == "__main__":
    main()
