"""Write what a run, a sweep or a model learned as one page: ``python scripts/report.py PATH``; see ``--help``."""

from mlp_lightning.commands.report import main

if __name__ == "__main__":
    main()
