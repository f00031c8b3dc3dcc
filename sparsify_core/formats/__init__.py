"""Sparse coders on disk, in the formats of the projects that we exchange them with."""
