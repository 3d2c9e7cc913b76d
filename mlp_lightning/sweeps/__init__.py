"""Sweeps: many runs of one command, and the leaderboard that compares them."""
