"""The command line: upstream's flat flags, generated from the configuration schema. Torch is imported only to train.

Exit codes: 0 completed, or stopped by SIGTERM with a checkpoint saved; 1 failed; 2 wrong usage or configuration.
"""

import argparse
import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import ValidationError

from sparsify_core.config import FieldSpec, RunConfig, iter_fields, nest
from sparsify_core.config.base import Group
from sparsify_core.errors import ConfigError, SparsifyError
from sparsify_core.rundir import RunDir

_POSITIONAL = ("model", "dataset")
_COMMANDS = {"convert": "sparsify_core.convert"}
"""First word -> module whose `main` takes the words behind it."""
_RESERVED = ("eval", "inspect", "export", "kernels")
_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NONE = ("none", "null")


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    if argv and argv[0] in _COMMANDS:
        return int(importlib.import_module(_COMMANDS[argv[0]]).main(argv[1:]))
    try:
        config, run_dir, attempt = parse(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if not sys.stderr.isatty():
        # Progress bars fill a log file with carriage returns; they read this when they are imported.
        os.environ.setdefault("TQDM_DISABLE", "1")
    # Imported late: torch takes seconds, and --help and errors in flags must not wait for it.
    from sparsify_core.train.launch import launch

    try:
        launch(config, run_dir, attempt)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SparsifyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str], base: Mapping[str, Any] | None = None) -> tuple[RunConfig, RunDir, int | None]:
    """Flags -> configuration, run directory, number of the attempt (None: the next free one).

    Args:
        base: values of the configuration that file and flags override.

    Raises ConfigError, one line per wrong field. Exits for --help.
    """
    if argv and argv[0] in _RESERVED:
        raise ConfigError(
            f"{argv[0]!r} is reserved for a later version: to train on a folder of this name write ./{argv[0]}"
        )
    specs = {spec.name: spec for spec in iter_fields(RunConfig)}
    parser = _build_parser(specs.values())
    given = vars(parser.parse_args(_complete_booleans(argv, specs.values())))
    file, run_dir, attempt = given.pop("config"), given.pop("run_dir"), given.pop("attempt")
    if given.pop("hf_token", None) is not None:
        raise ConfigError(
            "--hf_token would show the token to everybody on this machine: set HF_TOKEN in the environment"
        )
    values = _merge(_merge(dict(base or {}), _load_file(Path(file)) if file else {}), nest(given))
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None
    root = Path(run_dir) if run_dir else Path(config.save_dir, config.run_name or "unnamed")
    if not run_dir and RunDir(root).published() and not config.resume:
        raise ConfigError(f"{root} already holds checkpoints: give another --run_name or --save_dir")
    return config, RunDir(root), attempt


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see --help)")


def _build_parser(specs: Any) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m sparsify_core",
        usage="%(prog)s [MODEL] [DATASET] [--flag value ...]",
        description="Train sparse autoencoders or transcoders on the activations of a language model.",
        epilog=f"Other commands, each with a --help of its own: {', '.join(_COMMANDS)}",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default=None, metavar="FILE", help="JSON or YAML file; flags override it")
    parser.add_argument(
        "--run_dir", "--run-dir", default=None, metavar="DIR", help="folder of the run (default: save_dir/run_name)"
    )
    parser.add_argument(
        "--attempt", default=None, type=int, metavar="N", help="number of the attempt (default: next free)"
    )
    parser.add_argument("--hf_token", "--hf-token", nargs="?", const="", help=argparse.SUPPRESS)
    sections = {name: parser.add_argument_group(name) for name in get_args(Group)}
    for spec in specs:
        _add_field(sections[spec.group], spec)
    return parser


def _add_field(section: Any, spec: FieldSpec) -> None:
    text = _help(spec)
    if spec.name in _POSITIONAL:
        section.add_argument(spec.name, nargs="?", metavar=spec.name.upper(), help=text)
        return
    name = spec.flag
    flags = [f"--{name}", *([f"--{name.replace('_', '-')}"] if "_" in name else [])]
    if len(name) == 1:
        flags.insert(0, f"-{name}")
    if spec.kind == "bool":
        section.add_argument(*flags, dest=spec.name, type=_bool, metavar="BOOL", help=text)
        negated = [f"--no{name}", f"--no-{name}", f"--no-{name.replace('_', '-')}"]
        section.add_argument(
            *dict.fromkeys(negated), dest=spec.name, action="store_const", const=False, help=argparse.SUPPRESS
        )
    elif spec.kind.startswith("list"):
        section.add_argument(*flags, dest=spec.name, nargs="*", type=_scalar(spec), metavar="X", help=text)
    else:
        metavar = "{" + ",".join(spec.choices) + "}" if spec.choices else spec.kind.upper()
        section.add_argument(*flags, dest=spec.name, type=_scalar(spec), metavar=metavar, help=text)


def _help(spec: FieldSpec) -> str:
    default = "none" if spec.default is None or spec.default == [] else str(spec.default)
    unit = f"{spec.unit}; " if spec.unit else ""
    return f"{' '.join(spec.help.split())} [{unit}default: {default}]".replace("%", "%%")


def _scalar(spec: FieldSpec) -> Any:
    """Text -> what pydantic should judge. Numbers that are none stay text, so that it names the field."""

    def convert(text: str) -> Any:
        if spec.nullable and text.lower() in _NONE:
            return None
        try:
            if spec.kind in ("int", "list[int]"):
                return int(text)
            return float(text) if spec.kind == "float" else text
        except ValueError:
            return text

    return convert


def _bool(text: str) -> bool:
    if text.lower() not in _BOOLS:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return _BOOLS[text.lower()]


def _complete_booleans(argv: Sequence[str], specs: Any) -> list[str]:
    """`--transcode gpt2` -> `--transcode=true gpt2`: a switch takes the next word only if that is true or false."""
    switches = {f"--{s.flag}" for s in specs if s.kind == "bool"}
    complete: list[str] = []
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        is_switch = word.replace("-", "_").replace("__", "--", 1) in switches
        complete.append(f"{word}=true" if is_switch and following.lower() not in _BOOLS else word)
    return complete


def _load_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} is not valid JSON or YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path} must hold names and values, got {type(values).__name__}")
    if values.get("hf_token") is None:
        values.pop("hf_token", None)  # upstream's files carry it, empty
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error":
            lines.append(message)
        else:
            lines.append(f"{name}: {message[:1].lower()}{message[1:]}, got {item['input']!r}")
    return "\n       ".join(lines)
