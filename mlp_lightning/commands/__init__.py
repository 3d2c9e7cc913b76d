"""What is typed: one file for each family of commands."""
