"""Recreate the leaderboard of a sweep: ``python scripts/leaderboard.py lightning_logs/…``; see ``--help``."""

from mlp_lightning.sweeps.leaderboard.command import main

if __name__ == "__main__":
    main()
