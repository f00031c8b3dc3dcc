"""Answers about the parents and the descendants of runs."""

from typing import Any

from pydantic import BaseModel

from server.api.models.base import Model
from server.db.tables import RunState
from server.services import lineage
from server.services.lineage import How, Kin


class ChangeOut(Model):
    """A field that a run was asked for with otherwise than its parent, by its dotted name."""

    field: str
    before: Any
    after: Any


class KinOut(Model):
    """A run of a lineage, and how it was made."""

    id: str
    name: str
    state: RunState
    parent: str | None
    """The run that it was made of; that of the first one is not shown if the line is longer than 20."""
    how: How | None
    forked_step: int | None
    """The step of the checkpoint that a fork starts from."""
    checkpoint_id: str | None
    """That checkpoint, while the parent still has it."""
    finetune_state: bool
    """Whether a fork goes on with the optimizer's state, not from the weights alone."""
    changes: list[ChangeOut]
    """What it was asked for with otherwise than its parent, but for its name."""


class SweptOut(BaseModel):
    """The sweep in which a lineage began."""

    id: str
    name: str
    num_runs: int


class LineageOut(BaseModel):
    sweep: SweptOut | None
    ancestors: list[KinOut]
    """The first one first, each made of the one before it."""
    run: KinOut
    descendants: list[KinOut]
    """Each behind its parent."""
    has_more: bool
    """Whether more runs came of it than these."""


def kin_out(kin: Kin) -> KinOut:
    run = kin.run
    return KinOut(
        id=run.id,
        name=run.name,
        state=RunState(run.state),
        parent=lineage.parent_id(run),
        how=kin.how,
        forked_step=run.forked_step,
        checkpoint_id=kin.checkpoint_id,
        finetune_state=bool(run.config.get("finetune_state")),
        changes=[ChangeOut.model_validate(change) for change in kin.changes],
    )
