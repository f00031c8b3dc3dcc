"""The demo's language model and text, made from installed packages: no account and no network is needed."""
