"""Models and datasets to propose: what the Hugging Face cache of this machine holds, and what recent runs used."""

import os
from pathlib import Path

from sqlmodel import Session, col, select

from server.db.tables import Run

_RECENT = 100
"""Runs that are looked at."""


def known_sources(session: Session) -> dict[str, list[str]]:
    """`model` and `dataset` -> names, those of the newest runs first."""
    configs = session.exec(select(Run.config).order_by(col(Run.created_at).desc()).limit(_RECENT)).all()
    found = {}
    for name in ("model", "dataset"):
        used = [config[name] for config in configs if isinstance(config.get(name), str)]
        found[name] = list(dict.fromkeys([*used, *_cached(f"{name}s--")]))
    return found


def _cached(prefix: str) -> list[str]:
    """Repositories in the cache, whose folders are named `models--owner--name`. Reading them by the Hub's own library
    would load it into the server."""
    try:
        folders = sorted(entry.name for entry in _cache().iterdir())
    except OSError:
        return []
    return [name.removeprefix(prefix).replace("--", "/") for name in folders if name.startswith(prefix)]


def _cache() -> Path:
    """As huggingface_hub finds it."""
    if path := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(path).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(home).expanduser() / "hub"
