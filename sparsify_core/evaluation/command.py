"""`python -m sparsify_core eval CKPT`: evaluate coders from disk. Torch is imported only to work."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from sparsify_core.config import FieldSpec, RunConfig, iter_fields
from sparsify_core.config.run import GIVEN
from sparsify_core.errors import ConfigError
from sparsify_core.evaluation.source import Source, open_source
from sparsify_core.flags import FlagParser, explain

_FIELDS = ("eval_tokens", "exclude_tokens", "exclude_special_tokens", "exclude_first", "batch_size", "device")
"""Fields of the configuration with a flag, beside those of the group Model and data."""

_SAVED_FIELDS = ("max_tokens", "micro_acc_steps")
"""Fields without a flag that have a part in which tokens were held out, and in how many fit into memory at a time."""

_TEXT_FIELDS = ("dataset", "split", "data_args", "memmap_dtype", "text_column", "streaming")
"""Fields that say which text is read."""

_SPLIT_FIELDS = ("model", "revision", "ctx_len", "max_examples", "shuffle_seed", "eval_tokens")
"""With one of these as a flag, other tokens of the same text are held out."""

_COMMAND_OPTIONS = (
    FieldSpec(
        "coders",
        "list[str]",
        [],
        "Shell patterns of names of coders or their hookpoints, e.g. layers.5 or layers.*.mlp; without any, all.",
        "Evaluation",
    ),
    FieldSpec(
        "downstream",
        "bool",
        "where the model has a head",
        "Measure what splicing each reconstruction in does to the model's predictions.",
        "Evaluation",
    ),
    FieldSpec("output", "str", None, "JSON file for the numbers, like a checkpoint's eval.json.", "Evaluation"),
)


def run(argv: Sequence[str]) -> None:
    """Evaluate, and print a table. Raises ConfigError for wrong usage, SparsifyError for what cannot be read."""
    given = _parser().read(argv)
    name = given.pop("checkpoint")
    options = {spec.name: given.pop(spec.name, None) for spec in _COMMAND_OPTIONS}
    output = Path(options["output"]) if options["output"] else None
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ConfigError(f"--output {output} cannot be written: give a file in a folder that exists")
    source = open_source(name)
    folders = source.choose(options["coders"] or ())
    is_held_out = bool(source.config.get("eval_tokens")) and _is_own_text(source, given)
    config = run_config(source, given, is_held_out=is_held_out)
    for problem in source.problems:
        _warn(f"{problem}: an older checkpoint is evaluated, {source.root.name}")
    # Imported late: torch takes seconds, and --help and errors in flags must not wait for it.
    from sparsify_core.evaluation.disk import evaluate_folders
    from sparsify_core.evaluation.table import footer, table

    evaluation = evaluate_folders(
        folders,
        config,
        is_held_out=is_held_out,
        downstream=options["downstream"],
        warn=_warn,
        progress=_progress(),
    )
    _compare(source, given, evaluation.held_out.sha256)
    print(table(evaluation), footer(evaluation), sep="\n")
    if output is not None:
        try:
            output.write_text(json.dumps(evaluation.to_json()), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {output} cannot be written: {error.strerror}") from error


def run_config(source: Source, given: Mapping[str, Any], *, is_held_out: bool) -> RunConfig:
    """What the checkpoint says about model, text and exclusions, overridden by `given`; nothing else of it matters.

    Args:
        is_held_out: whether the run's own held-out tokens are wanted; other text is read no further than necessary.

    Raises ConfigError when model or dataset are known from neither, or a value is wrong.
    """
    names = [*(spec.name for spec in _specs()), *_SAVED_FIELDS]
    values = {name: source.config[name] for name in names if name in source.config} | dict(given)
    for name in ("model", "dataset"):
        if values.get(name) in (None, "", GIVEN):
            raise ConfigError(f"{source.root} does not say which {name} it belongs to: give --{name}")
    if "batch_size" in given:
        values.pop("micro_acc_steps", None)
    if not is_held_out:
        eval_tokens = values.get("eval_tokens", RunConfig.model_fields["eval_tokens"].default)
        values["max_tokens"] = eval_tokens if isinstance(eval_tokens, int) and eval_tokens > 0 else None
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    if not config.eval_tokens:
        raise ConfigError("eval_tokens is 0, so there is nothing to evaluate on: give --eval_tokens")
    return config


def _parser() -> FlagParser:
    specs = [replace(spec, default="as in the checkpoint") for spec in _specs()]
    parser = FlagParser(
        [*specs, *_COMMAND_OPTIONS],
        prog="python -m sparsify_core eval",
        usage="%(prog)s CKPT [--flag value ...]",
        description="Evaluate sparse coders on held-out tokens: by default those that their run held out.",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        help="folder of a checkpoint or a run (its newest intact checkpoint), a folder written by EleutherAI's "
        "sparsify, or a Hub id",
    )
    return parser


def _specs() -> list[FieldSpec]:
    return [spec for spec in iter_fields(RunConfig) if spec.group == "Model and data" or spec.name in _FIELDS]


def _is_own_text(source: Source, given: Mapping[str, Any]) -> bool:
    """Whether `given` names no other text than the checkpoint does. A file counts as the same in whatever folder it
    lies: it may have been moved, and the config.json on the Hub has no folders.
    """
    return all(
        value == source.config.get(name)
        or (name == "dataset" and PurePath(value).name == PurePath(str(source.config.get(name))).name)
        for name, value in given.items()
        if name in _TEXT_FIELDS
    )


def _compare(source: Source, given: Mapping[str, Any], sha256: str) -> None:
    """Warn when the tokens are not those that the run held out, or when nobody can tell."""
    if source.evaluation is None:
        is_split = bool(source.config.get("eval_tokens")) and not given.keys() & set(_SPLIT_FIELDS)
        if not is_split and _is_own_text(source, given):
            _warn("nothing says which tokens were held out: the coders may have been trained on some of these")
    elif source.evaluation.get("token_sha256") != sha256:
        _warn(
            f"these are not the held-out tokens of the checkpoint's eval.json (sha256 {sha256[:8]}, there "
            f"{str(source.evaluation.get('token_sha256'))[:8]}): the coders may have been trained on some of them"
        )


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _progress() -> Callable[[int, int], None]:
    """A line that counts up on a terminal; nothing elsewhere."""

    def show(done: int, total: int) -> None:
        print(f"\revaluating {done / total:4.0%}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else lambda done, total: None
