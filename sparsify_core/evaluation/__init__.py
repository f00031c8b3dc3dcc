"""Measure sparse coders on fixed held-out tokens: while training, from a program, and from the command line."""
