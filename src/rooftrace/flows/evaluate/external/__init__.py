"""Predictions that other tools have written to files, evaluated as those of a model."""
