"""The mathematics of sparse coders: no files, no configuration sources, no distribution."""
