"""From files and frames to typed columns, targets, splits and batches of numbers."""
