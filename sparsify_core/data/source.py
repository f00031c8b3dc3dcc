"""Open the dataset that the configuration names."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsify_core.config import RunConfig
from sparsify_core.errors import DataError

_FORMATS = {".jsonl": "json", ".json": "json", ".txt": "text", ".parquet": "parquet"}


def open_dataset(config: RunConfig) -> Any:
    """A map-style dataset with at least one row.

    Raises DataError when it cannot be found or read, or is empty.
    """
    with reading(config.dataset):
        dataset = _open(config)
    if not len(dataset):
        raise DataError(f"dataset {config.dataset} is empty")
    return dataset


def open_stream(config: RunConfig) -> Any:
    """An iterable dataset. Raises DataError when it cannot be found."""
    with reading(config.dataset):
        dataset = _open(config)
    return dataset.to_iterable_dataset() if hasattr(dataset, "to_iterable_dataset") else dataset


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what `datasets` raises about the dataset `name` into a DataError."""
    import datasets  # slow to import, and --help must be instant

    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(_reason(name, error)) from error


def _open(config: RunConfig) -> Any:
    from datasets.load import load_dataset, load_from_disk  # see reading

    path = Path(config.dataset).expanduser()
    if path.is_file():
        return _open_file(path, streaming=config.is_streaming)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _choose_split(load_from_disk(str(path)), config)
    _refuse_missing_path(config.dataset, path)
    arguments = {**parse_data_args(config.data_args), "streaming": config.is_streaming}
    return load_dataset(config.dataset, split=config.split, **arguments)


def check_column(row: Mapping[str, Any], column: str, name: str) -> None:
    """Raise DataError when the text column is missing from the dataset's first row or does not hold text."""
    if column not in row:
        raise DataError(f"dataset {name} has no column {column!r}: set text_column to one of {', '.join(row)}")
    if not isinstance(row[column], str):
        raise DataError(f"column {column!r} of dataset {name} holds {type(row[column]).__name__}, not text")


def parse_data_args(text: str) -> dict[str, Any]:
    """`a=1,b=x` -> {"a": 1, "b": "x"}; true/false, integers and decimals are converted, everything else stays text.

    Raises DataError for a part without `=`.
    """
    arguments: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise DataError(f"data_args has {part!r}: write name=value,name=value")
        arguments[name.strip()] = _convert(value.strip())
    return arguments


def _convert(value: str) -> Any:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _open_file(path: Path, *, streaming: bool) -> Any:
    from datasets.load import load_dataset  # see reading

    builder = _FORMATS.get(path.suffix.lower())
    if builder is None:
        raise DataError(f"{path} has an unknown ending: give {', '.join(_FORMATS)}, or .bin with token ids")
    if path.stat().st_size == 0:
        raise DataError(f"dataset {path} is empty")
    arguments: dict[str, Any] = {"data_files": str(path), "streaming": streaming}
    return load_dataset(builder, split="train", **arguments)


def _choose_split(dataset: Any, config: RunConfig) -> Any:
    if hasattr(dataset, "column_names") and isinstance(dataset.column_names, dict):
        if config.split not in dataset:
            raise DataError(f"dataset {config.dataset} has no split {config.split!r}: it has {', '.join(dataset)}")
        return dataset[config.split]
    return dataset


def _refuse_missing_path(name: str, path: Path) -> None:
    looks_like_path = name.startswith(("/", "./", "../", "~")) or path.suffix.lower() in _FORMATS or name.count("/") > 1
    if looks_like_path and not path.exists():
        raise DataError(f"dataset {name} does not exist: check the path, or give a Hugging Face dataset id")


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    text = str(error).strip()
    if type(error).__name__ == "DatasetNotFoundError" or "doesn't exist on the Hub" in text:
        return (
            f"dataset {name!r} is neither a file nor a folder here nor on the Hugging Face Hub: "
            "check the spelling, and set HF_TOKEN if it is private"
        )
    if os.environ.get("HF_HUB_OFFLINE") == "1" or isinstance(error, ConnectionError):
        return f"dataset {name!r} is not on this machine and the Hugging Face Hub cannot be reached: give a local file"
    first_line = text.splitlines()[0] if text else type(error).__name__
    return f"dataset {name!r} cannot be read: {first_line}"
