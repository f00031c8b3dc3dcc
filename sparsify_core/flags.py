"""The grammar of flags, derived from the configuration's fields; what every command shares. Torch-free."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import ValidationError

from sparsify_core.config import FieldSpec
from sparsify_core.config.base import Group
from sparsify_core.errors import ConfigError

_BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NONE = ("none", "null")
TOKEN_REFUSED = "hf_token would be seen by everybody on this machine: set HF_TOKEN in the environment instead"  # noqa: S105


class FlagParser(argparse.ArgumentParser):
    """Flags of `specs`, each under the heading of its group; further arguments are added as usual.

    Args:
        positional: names of fields that are given without a flag.
        add_help: whether -h and --help print the help and exit.
    """

    def __init__(
        self,
        specs: Iterable[FieldSpec],
        *,
        prog: str,
        usage: str,
        description: str,
        positional: Sequence[str] = (),
        add_help: bool = True,
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            allow_abbrev=False,
            add_help=add_help,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._specs = list(specs)
        self.add_argument("--hf_token", "--hf-token", nargs="?", const="", help=argparse.SUPPRESS)
        used = {spec.group for spec in self._specs}
        sections = {name: self.add_argument_group(name) for name in get_args(Group) if name in used}
        for spec in self._specs:
            if spec.name in positional:
                section = sections[spec.group]
                section.add_argument(spec.name, nargs="?", metavar=spec.name.upper(), help=_help(spec))
            else:
                _add_field(sections[spec.group], spec)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see --help)")

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """What was given, by dotted name. Raises ConfigError for wrong usage; exits for --help."""
        given = vars(self.parse_args(_complete_booleans(argv, self._specs)))
        if given.pop("hf_token", None) is not None:
            raise ConfigError(TOKEN_REFUSED)
        return given


def _add_field(section: Any, spec: FieldSpec) -> None:
    text = _help(spec)
    name = spec.flag
    flags = [f"--{name}", *([f"--{name.replace('_', '-')}"] if "_" in name else [])]
    if len(name) == 1:
        flags.insert(0, f"-{name}")
    if spec.kind == "bool":
        section.add_argument(*flags, dest=spec.name, type=_bool, metavar="BOOL", help=text)
        negated = [f"--no{name}", f"--no_{name}", f"--no-{name}", f"--no-{name.replace('_', '-')}"]
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


def _complete_booleans(argv: Sequence[str], specs: Iterable[FieldSpec]) -> list[str]:
    """`--transcode gpt2` -> `--transcode=true gpt2`: a switch takes the next word only if that is true or false."""
    switches = {f"--{s.flag}" for s in specs if s.kind == "bool"}
    complete: list[str] = []
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        is_switch = word.replace("-", "_").replace("__", "--", 1) in switches
        complete.append(f"{word}=true" if is_switch and following.lower() not in _BOOLS else word)
    return complete


def explain(error: ValidationError) -> str:
    """A line per wrong field."""
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "value_error":
            lines.append(message)
        else:
            lines.append(f"{name}: {message[:1].lower()}{message[1:]}, got {item['input']!r}")
    return "\n       ".join(lines)


def load_file(path: Path) -> dict[str, Any]:
    """A configuration in JSON or YAML. Raises ConfigError when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} is not valid JSON or YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path} must hold names and values, got {type(values).__name__}")
    if values.pop("hf_token", None) is not None:  # upstream's files carry it, empty
        raise ConfigError(TOKEN_REFUSED)
    return values


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, level by level."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged
