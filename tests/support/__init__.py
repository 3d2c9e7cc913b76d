"""What several tests need: real commands, rows, run folders, tolerances."""
