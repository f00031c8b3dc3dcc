"""Sparseboard's trainer: k-sparse autoencoders and transcoders on language-model activations.

Importing this package, or its `config`, `events`, `metrics`, `rundir` and `errors`, never imports torch: the web server
and the command line's `--help` stand on them.
"""
