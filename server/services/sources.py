"""Which models and datasets a run may name: Hub ids, and local ones below the folders that the deployment declares."""

import re
from collections.abc import Iterator
from pathlib import Path

from server.errors import FieldProblem
from server.settings import Settings
from sparsify_core.config import RunConfig

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_FILE_ENDINGS = (".json", ".jsonl", ".txt", ".parquet", ".csv", ".bin", ".arrow", ".gguf", ".py")
_DATA_ARGUMENT = re.compile(r"\w+=([\w.+*-]+(/[\w.+*-]+)*)?", re.ASCII)


def source_problems(config: RunConfig, settings: Settings) -> list[FieldProblem]:
    """What is wrong with the model, the dataset and the dataset's arguments; nothing is opened."""
    return [*_problems(config, settings)]


def model_problem(model: str, settings: Settings) -> str | None:
    """Why a model may not be named, or None."""
    return _source_problem(model, settings)


def _problems(config: RunConfig, settings: Settings) -> Iterator[FieldProblem]:
    for name in ("model", "dataset"):
        message = _source_problem(getattr(config, name), settings)
        if message:
            yield FieldProblem(("config", name), message, f"{name}_not_allowed")
    if config.finetune is not None:
        is_repository = _is_hub_id(config.finetune) and "/" in config.finetune
        message = _path_problem(Path(config.finetune), [settings.runs_dir, *settings.source_roots])
        if message and not is_repository:
            yield FieldProblem(("config", "finetune"), message, "finetune_not_allowed")
    for argument in filter(None, config.data_args.split(",")):
        if "trust_remote_code" in argument:
            message = "code that comes with a dataset is never run: leave trust_remote_code out"
            yield FieldProblem(("config", "data_args"), message, "remote_code_not_allowed")
        elif not _DATA_ARGUMENT.fullmatch(argument.strip()) or ".." in argument:
            message = f"write the arguments as name=value,name=value, without paths outside the dataset: {argument!r}"
            yield FieldProblem(("config", "data_args"), message, "data_args")


def _source_problem(source: str, settings: Settings) -> str | None:
    if _is_hub_id(source):
        return None
    path = Path(source)
    if not path.is_absolute():
        return f"{source!r} is neither a Hub id (owner/name) nor the absolute path of a local folder or file"
    if path.resolve().suffix == ".py":
        return f"{source} is a program: code that comes with a dataset is never run"
    return _path_problem(path, [settings.demo_dir, *settings.source_roots])


def _is_hub_id(source: str) -> bool:
    plain = ".." not in source and "--" not in source and not source.endswith(_FILE_ENDINGS)
    return plain and _HUB_ID.fullmatch(source) is not None


def _path_problem(path: Path, roots: list[Path]) -> str | None:
    if not path.is_absolute() or ".." in path.parts:
        return f"{str(path)!r} is not an absolute path of a local folder or file"
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) for root in roots):
        return f"{path} lies outside the folders that this server may read: add its folder to SPARSEBOARD_SOURCE_ROOTS"
    return None if resolved.exists() else f"{path} does not exist on the server"
