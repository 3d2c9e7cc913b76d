"""Sweeps that search: a space is drawn from, and trials that fall behind leave."""
