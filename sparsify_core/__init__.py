"""Sparseboard's trainer: k-sparse autoencoders and transcoders on language-model activations.

Importing this package, or its `config`, `events`, `metrics`, `rundir` and `errors`, never imports torch: the web server
and the command line's `--help` stand on them. The names in `__all__`, upstream's and `evaluate`, are imported when they
are asked for.
"""

import importlib
from typing import Any

_HOMES = {
    "MemmapDataset": "data.library",
    "Sae": "formats.library",
    "SaeConfig": "config.library",
    "SparseCoder": "formats.library",
    "SparseCoderConfig": "config.library",
    "TrainConfig": "config.library",
    "Trainer": "train.library",
    "TranscoderConfig": "config.library",
    "chunk_and_tokenize": "data.library",
    "evaluate": "evaluation.library",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
