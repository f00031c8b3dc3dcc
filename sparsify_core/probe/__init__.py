"""`python -m sparsify_core.probe NAME`: small trials of this machine, whose process prints one JSON object."""
