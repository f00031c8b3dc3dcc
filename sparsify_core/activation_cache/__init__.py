"""Activations on disk: written by one pass of the language model, read by every run that needs the same."""
