"""The training loop and what only it needs. Imported by the command line alone."""
