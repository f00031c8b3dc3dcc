"""A command line: `python -m sparsify_core MODEL DATASET --flags`, under torchrun where there are several processes."""

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from server.launch_flags import add_launch_flags
from server.services.notation.reading import NotationError, Problem, Reading, changed, launch_of, read
from sparsify_core.config import FieldSpec, RunConfig, iter_fields, nest
from sparsify_core.errors import ConfigError
from sparsify_core.flags import FlagParser
from sparsify_core.torchrun import as_text, options_to_fill_in, torchrun_command

_PROGRAMS = ("sparsify_core", "sparsify")
_LAUNCHERS = {"torchrun", "torch.distributed.run"}
_CONTINUED = re.compile(r"""('[^']*'|"(?:\\.|[^"\\])*"|\\[^\r\n])|\\\r?\n""", re.DOTALL)
"""Quoted and escaped text, or a line's end behind a backslash, which the shell takes out."""


def to_command(config: RunConfig, *, num_processes: int = 1, num_nodes: int = 1) -> str:
    """The command with the flags that differ from their defaults, one to a line.

    Raises NotationError for one of the few configurations that flags cannot say.
    """
    fields = {spec.name: spec for spec in iter_fields(RunConfig)}
    given = changed(config)
    sources = [given.pop("model"), given.pop("dataset")]
    is_plain = not any(source.startswith("-") for source in sources)
    words = [[as_text(_launcher(num_processes, num_nodes)), *(map(shlex.quote, sources) if is_plain else [])]]
    words += [[*_flag(fields[name], value)] for name, value in given.items()]
    words += [] if is_plain else [["--", *map(shlex.quote, sources)]]
    text = " \\\n  ".join(" ".join(line) for line in words)
    if _read_back(text) != config:
        raise NotationError(Problem("flags cannot say this configuration: use the YAML file with --config"))
    return text + "\n"


def _launcher(num_processes: int, num_nodes: int) -> list[str]:
    if num_processes == num_nodes == 1:
        return ["python", "-m", "sparsify_core"]
    return torchrun_command("python", [], num_processes=num_processes, options=options_to_fill_in(num_nodes))


def _flag(spec: FieldSpec, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield f"--{spec.flag}" if value else f"--no_{spec.flag}"
    elif isinstance(value, list):
        yield f"--{spec.flag}"
        yield from (shlex.quote(str(item)) for item in value)
    elif isinstance(value, str) and value.startswith("-"):
        yield f"--{spec.flag}={shlex.quote(value)}"
    else:
        yield f"--{spec.flag}"
        yield shlex.quote(value if isinstance(value, str) else repr(value))


def _read_back(text: str) -> RunConfig | None:
    try:
        return from_command(text).config
    except NotationError:
        return None


def from_command(text: str) -> Reading:
    """A command line of ours or of sparsify, with or without the program's name, as a shell would read it; also
    `sparseboard runs launch`, which says all that a run is asked for with.

    Raises NotationError: unbalanced quotes, an unknown flag, a wrong value.
    """
    try:
        words = shlex.split(_CONTINUED.sub(lambda match: match.group(1) or " ", text))
    except ValueError as error:
        raise NotationError(Problem(f"a shell could not read this: {error}".lower())) from None
    launcher, flags = _split(words[:-1] if words[-1:] == ["&"] else words)
    if {"-h", "--help"} & {*flags}:
        raise NotationError(Problem("--help asks for help: leave it out", _line_of(text, "--help")))
    if _is_sparseboard(launcher[-3:]):
        asked, notes, flags = _sparseboard(text, flags)
    else:
        asked, notes = _launch(launcher)
    try:
        given = _parser().read(flags)
    except ConfigError as error:
        message = str(error).removesuffix(" (see --help)")
        raise NotationError(Problem(message, _line_named_in(text, message))) from None
    found = read(nest(given), lambda name: _line_of_flag(text, name), **asked)
    return replace(found, notes=(*notes, *found.notes))


@lru_cache
def _parser() -> FlagParser:
    return FlagParser(
        iter_fields(RunConfig),
        prog="python -m sparsify_core",
        usage="",
        description="",
        positional=("model", "dataset"),
        add_help=False,  # it would end the server's request
    )


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """What starts the program, and the program's own words."""
    for index, word in enumerate(words):
        if _is_sparseboard(words[index : index + 3]):
            return words[: index + 3], words[index + 3 :]
        if word in _PROGRAMS and (index == 0 or words[index - 1] == "-m"):
            return words[:index], words[index + 1 :]
        if word.startswith("-") and word != "-m" and _LAUNCHERS.isdisjoint(words[:index]):
            break
    return [], words


def _is_sparseboard(words: list[str]) -> bool:
    match words:
        case [program, "runs", "launch"]:
            return PurePosixPath(program).name == "sparseboard"
    return False


def _sparseboard(text: str, words: list[str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """What the run is asked for with, notes, and the flags of training.

    Raises NotationError: a flag without its value, a wrong value, or a file, which lies with the one who pastes.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add_launch_flags(parser)
    parser.add_argument("--config")
    parser.add_argument("--data-dir")
    try:
        known, flags = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise NotationError(Problem(str(error), _line_named_in(text, str(error)))) from None
    given = vars(known)
    notes = ["data_dir is left out: the run is queued here."] if given.pop("data_dir") else []
    if given.pop("config"):
        raise NotationError(Problem("the file of --config is not here: paste it into YAML", _line_of(text, "--config")))
    return launch_of(given, lambda name: _line_of_flag(text, name)), notes, flags


def _launch(launcher: list[str]) -> tuple[dict[str, int], list[str]]:
    """Processes and nodes that torchrun is asked for, and notes: anything but a number is left to the form.

    Raises NotationError: a flag without its number, or a number with thousands of digits.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--nproc_per_node", "--nproc-per-node", dest="num_processes")
    parser.add_argument("--nnodes", dest="num_nodes")
    try:
        given = {name: value for name, value in vars(parser.parse_known_args(launcher)[0]).items() if value is not None}
        asked = {name: int(value) for name, value in given.items() if value.isdecimal()}
    except (argparse.ArgumentError, ValueError) as error:
        raise NotationError(Problem(f"torchrun: {error}")) from None
    left = given.keys() - asked.keys()
    return asked, [f"{name} stays as it was: torchrun's {given[name]!r} is no number." for name in sorted(left)]


def _line_of(text: str, word: str) -> int | None:
    at = re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
    return text.count("\n", 0, at.start()) + 1 if at else None


def _line_of_flag(text: str, name: str) -> int | None:
    flag = name.rpartition(".")[2]
    return next(filter(None, (_line_of(text, f"--{f}") for f in (flag, flag.replace("_", "-"), f"no_{flag}"))), None)


def _line_named_in(text: str, message: str) -> int | None:
    """argparse's messages name flags: the first that stands in the text."""
    return next(filter(None, (_line_of(text, word.rstrip(":,")) for word in re.findall(r"-[^\s/]+", message))), None)
