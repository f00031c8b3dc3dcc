"""Measure sparse coders on the fixed held-out tokens."""
