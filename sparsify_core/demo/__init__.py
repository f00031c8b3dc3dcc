"""The demo's language model and text, made from installed packages: no account and no network is needed."""

MODEL_NAME = "SmolLM2-135M-Instruct"
"""Folder of the model, below the demo's folder."""

TEXT_NAME = "bible-and-docstrings.jsonl"
"""File of the text, beside it."""
