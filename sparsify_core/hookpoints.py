"""Hookpoint patterns -> names of modules. Torch-free: the trainer and the form match by the same code."""

import difflib
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from natsort import natsorted

from sparsify_core.errors import HookpointError

_CLASS = re.compile(r"\[(!?+\]?+[^\]]*+)\]")
"""As `fnmatch` reads brackets: a `]` directly behind `[` or `[!` is a letter like others."""
_RANGE = re.compile(r"([^!])-(.)", re.DOTALL)


def pattern_problem(pattern: str) -> str:
    """Why a pattern matches no module of any model, in words; empty where it may match.

    `fnmatch` refuses nothing: it takes a bracket that is not closed for a letter, which no name holds. What is only odd
    may match: `[5-15]` is a 5.
    """
    rest = _CLASS.sub("?", pattern)
    if "[" in rest:
        return "its brackets are not whole: write them as in layers.[0-9]"
    for inside in _CLASS.findall(pattern):
        alone = _RANGE.fullmatch(inside)
        if alone and alone[1] > alone[2]:
            return f"nothing lies from {alone[1]} to {alone[2]}: write [{alone[2]}-{alone[1]}]"
    if rest.startswith(".") or rest.endswith(".") or ".." in rest:
        return "a dot has no name on one of its sides"
    return ""


def match_patterns(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that any of the patterns matches, in natural order.

    Raises HookpointError when a pattern matches nothing; near matches are named.
    """
    matched: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            raise HookpointError(_no_match(pattern, names))
        matched.update(hits)
    ordered: list[str] = natsorted(matched)
    return ordered


def choose_layers(prefix: str, num_layers: int, layers: Sequence[int]) -> list[str]:
    """Names of the entries `layers` of the list of layers `prefix`, or of all of them where none are given.

    Raises HookpointError when one does not exist.
    """
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise HookpointError(f"layer {layer} does not exist: the model has layers 0 to {num_layers - 1}")
    return [f"{prefix}.{layer}" for layer in sorted(set(layers)) or range(num_layers)]


def _no_match(pattern: str, names: Sequence[str]) -> str:
    if problem := pattern_problem(pattern):
        return f"hookpoint {pattern!r} matches no module: {problem}"
    for prefix in ("model.", "transformer.", "gpt_neox."):
        short = pattern.removeprefix(prefix)
        if short != pattern and any(fnmatchcase(name, short) for name in names):
            return f"no module matches hookpoint {pattern!r}: names start below the base model, write {short!r}"
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or list(names[:3])
    return f"no module matches hookpoint {pattern!r}: did you mean {', '.join(near)}?"
