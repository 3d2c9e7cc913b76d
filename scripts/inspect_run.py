"""Show a run in the terminal, live while it trains. See ``--help``.

Not called ``inspect.py``: Python puts this folder first on its path, and that would hide the standard library's module.
"""

from mlp_lightning.commands.inspection import main

if __name__ == "__main__":
    main()
