"""Tells people what happens to runs, by webhook and by mail, and acts on rules that watch them."""
