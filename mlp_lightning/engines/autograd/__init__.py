"""Torch's autograd as an engine."""
