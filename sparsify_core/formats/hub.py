"""Download sparse coders from the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path

from sparsify_core.errors import CheckpointError


def download(name: str, patterns: Sequence[str] | None) -> Path:
    """Folder with the files of the repository `name` that match one of `patterns`; None: all.

    Raises CheckpointError when it cannot be had.
    """
    from httpx2 import HTTPError  # what the Hub's client speaks HTTP with
    from huggingface_hub import snapshot_download  # slow to import, and local files do not need it

    try:
        return Path(snapshot_download(name, allow_patterns=None if patterns is None else list(patterns)))
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(
            f"{name} is neither a folder here nor a repository that can be read from the Hugging Face Hub "
            f"({type(error).__name__}): check the name and the connection, and set HF_TOKEN if it is private"
        ) from error
