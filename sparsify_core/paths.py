"""What leaves this machine does not say where things lie on it."""

from pathlib import PurePath
from typing import Any


def without_paths(value: Any) -> Any:
    """A JSON value in which absolute paths, and those below `~`, have only their last part left."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    is_path = isinstance(value, str) and (PurePath(value).is_absolute() or value.startswith("~"))
    return PurePath(value).name if is_path else value
