"""Evaluation, predictions and export of trained models."""
