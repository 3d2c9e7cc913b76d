"""Make the folders of runs of a packed sweep. See ``--help``."""

from mlp_lightning.commands.unpack import main

if __name__ == "__main__":
    main()
