"""Runs that start from a checkpoint of another one, with changes."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlmodel import Session

from server.db.ids import new_id
from server.db.session import Database
from server.db.tables import Checkpoint, Run
from server.errors import FieldProblem, InvalidError, NotFoundError
from server.services.checkpoints import directory, get_checkpoint
from server.services.requests import RunRequest, launch_values, with_values
from server.services.runs import create_run, get_run
from server.services.sweep_spec import sweepable
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.config.continuation import FORKABLE, changed, flat
from sparsify_core.linking import link_checkpoint
from sparsify_core.rundir import CheckpointDir

_SHAPE = ("sae.expansion_factor", "sae.num_latents", "sae.transcode", "sae.skip_connection")
"""Other values would need other weights."""
NOT_FORKED: dict[str, Any] = {"finetune": None, "finetune_state": False}
"""Fields that a fork sets itself."""
_FREE = {"name", "labels", "min_memory_gb"}
"""What a run is asked for with that training does not depend on."""


def costs_state(names: Iterable[str]) -> list[str]:
    """Of the fields that a fork changes, those with which it keeps the checkpoint's weights alone.

    Args:
        names: dotted names of the configuration's fields, and names of `LAUNCH_FIELDS`.
    """
    return [name for name in names if name not in FORKABLE and name not in _FREE]


def is_at_end(parent: Run, step: int, num_epochs: int) -> bool:
    """Whether nothing is left to train behind a step of a run, so that a fork there starts from the weights alone.

    Args:
        num_epochs: of the fork; more of them go on behind the end, unless max_tokens ends the run before.
    """
    if num_epochs <= parent.config["num_epochs"]:
        return 0 < parent.total_steps <= step
    limit = parent.config["max_tokens"]
    return limit is not None and parent.tokens_per_step > 0 and step >= limit // parent.tokens_per_step


def goes_on(saved: CheckpointDir, checkpoint: Checkpoint, parent: Run, request: RunRequest) -> bool:
    """Whether a fork goes on at its checkpoint's step; else it starts at step 0 from the weights.

    Args:
        saved: the checkpoint's files.
    """
    is_over = is_at_end(parent, checkpoint.step, request.config.num_epochs)
    keeps = not is_over and not costs_state(_changes(saved, parent, request))
    return keeps and saved.training_state.is_file()


def first_step(checkpoint: Checkpoint, parent: Run, request: RunRequest, *, settings: Settings) -> int:
    """The step behind which a fork would train. Raises NotFoundError when the checkpoint's files are gone."""
    return checkpoint.step if goes_on(directory(settings, checkpoint), checkpoint, parent, request) else 0


def fork_origin(session: Session, checkpoint_id: str) -> tuple[Checkpoint, Run]:
    """A checkpoint and its run. Raises NotFoundError."""
    checkpoint = get_checkpoint(session, checkpoint_id)
    return checkpoint, get_run(session, checkpoint.run_id)


@contextmanager
def kept_checkpoint(database: Database, checkpoint_id: str, *, settings: Settings) -> Iterator[str]:
    """Keep a checkpoint for a run that `fork_run` makes of it meanwhile, whose id this yields; else it is let go again.

    Outside the transaction: where files cannot be linked, gigabytes are copied.

    Raises:
        NotFoundError: there is no such checkpoint, or its files are gone.
    """
    with database.read() as session:
        checkpoint = get_checkpoint(session, checkpoint_id)
    saved, run_id = directory(settings, checkpoint), new_id()
    run_dir = settings.run_dir(run_id)
    try:
        _keep(saved, run_dir.origin(checkpoint.step))
        yield run_id
    finally:
        with database.read() as session:
            is_forked = session.get(Run, run_id) is not None
        if not is_forked:
            shutil.rmtree(run_dir.root, ignore_errors=True)


def fork_run(
    session: Session, checkpoint_id: str, run_id: str, request: RunRequest, *, settings: Settings, actor: str
) -> Run:
    """Queue a run that starts from a checkpoint, which `kept_checkpoint` has kept for it.

    It goes on at the checkpoint's step, with the optimizer's state and the place in the data, unless a change rules
    that out (`costs_state`) or nothing is left to train there: then it starts at step 0 from the weights.

    Raises:
        NotFoundError: there is no such checkpoint, or its files are gone.
        InvalidError: the weights do not fit the request, or the model or dataset may not be used.
    """
    checkpoint, parent = fork_origin(session, checkpoint_id)
    saved = directory(settings, checkpoint)
    _refuse_other_shape(saved, request)
    origin = settings.run_dir(run_id).origin(checkpoint.step)
    own = {"finetune": str(origin.root.absolute()), "finetune_state": goes_on(saved, checkpoint, parent, request)}
    request = request.model_copy(update={"config": request.config.model_copy(update=own)})
    detail = f"forked from {parent.id} at step {checkpoint.step}"
    lineage = {"id": run_id, "forked_from": parent.id, "forked_step": checkpoint.step}
    return create_run(session, request, settings=settings, actor=actor, detail=detail, **lineage)


def changed_request(session: Session, checkpoint_id: str, name: str | None, changes: dict[str, Any]) -> RunRequest:
    """What the run of a checkpoint was asked for with, under another name and with other values of some fields.

    Raises NotFoundError; InvalidError when there is no such field; ValidationError when a value does not fit.
    """
    checkpoint, parent = fork_origin(session, checkpoint_id)
    for unknown in changes.keys() - sweepable().keys():
        raise InvalidError.field(("changes", unknown), f"{unknown!r} is no field, such as lr or sae.k")
    config = RunConfig.model_validate(parent.config | NOT_FORKED)
    base = RunRequest(**launch_values(parent), config=config)
    return with_values(base, changes, name=name or fork_name(parent, checkpoint))


def fork_name(parent: Run, checkpoint: Checkpoint) -> str:
    """What a fork is called unless somebody says otherwise."""
    return f"{parent.name[:170]} from step {checkpoint.step}"


def _keep(saved: CheckpointDir, origin: CheckpointDir) -> None:
    origin.root.parent.mkdir(parents=True)
    try:
        link_checkpoint(saved, CheckpointDir(origin.root.with_name(".tmp")), origin)
    except FileNotFoundError as error:  # its run, which goes on, has deleted it at this moment
        raise NotFoundError(f"The files of the checkpoint of step {saved.step} are gone.") from error


def _refuse_other_shape(saved: CheckpointDir, request: RunRequest) -> None:
    before, after = flat(_config(saved)), flat(request.config.model_dump())
    problems = [
        FieldProblem(
            ("config", *name.split(".")),
            f"the checkpoint's coders have {name.rpartition('.')[2]} = {before[name]}: keep that, or clone the run",
            "other_shape",
        )
        for name in _SHAPE
        if before.get(name, after[name]) != after[name]
    ]
    if problems:
        raise InvalidError(problems[0].msg, errors=problems)


def _changes(saved: CheckpointDir, parent: Run, request: RunRequest) -> list[str]:
    launch = [name for name in ("num_processes", "num_nodes") if getattr(request, name) != getattr(parent, name)]
    return changed(_config(saved), request.config.model_dump()) + launch


def _config(saved: CheckpointDir) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(saved.config.read_text(encoding="utf-8"))
    return found
