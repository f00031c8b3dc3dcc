"""What the launch form is filled in from: a run, which it copies, or a checkpoint, which it forks."""

from typing import Any, NamedTuple

from fastapi import Request
from sqlmodel import Session

from server.db.tables import Checkpoint, Run
from server.errors import NotFoundError
from server.pages import forms
from server.services import forks, runs
from server.services.requests import launch_values


class Origin(NamedTuple):
    """The run that a form is filled in from; with the checkpoint, it is forked there."""

    run: Run
    checkpoint: Checkpoint | None = None

    @property
    def values(self) -> dict[str, Any]:
        """The form values of an unchanged copy."""
        name = f"{self.run.name} copy" if self.checkpoint is None else forks.fork_name(self.run, self.checkpoint)
        own = {} if self.checkpoint is None else forks.NOT_FORKED
        return forms.values_of(self.run.config | own, **launch_values(self.run) | {"name": name})

    def is_at_end(self, num_epochs: str) -> bool:
        """Whether a fork with so many epochs, as typed, has nothing left to train behind its checkpoint."""
        epochs = int(num_epochs) if num_epochs.isdecimal() and len(num_epochs) < 5 else 1
        return self.checkpoint is not None and forks.is_at_end(self.run, self.checkpoint.step, epochs)


def find_origin(session: Session, run_id: str, checkpoint_id: str) -> Origin | None:
    """What the form is filled in from, if from a run. Raises NotFoundError."""
    if checkpoint_id:
        checkpoint, parent = forks.fork_origin(session, checkpoint_id)
        return Origin(parent, checkpoint)
    return Origin(runs.get_run(session, run_id)) if run_id else None


def differences(origin: Origin | None, before: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """What the values of the form change, and what that means for a fork."""
    names = [name.removeprefix(forms.PREFIX) for name in before if before[name] != values[name]]
    changes = forms.changes(before, values)
    return {
        "origin": origin,
        "changes": changes,
        "costs_state": forks.costs_state(names),
        "is_at_end": origin is not None and origin.is_at_end(str(values["config.num_epochs"])),
    }


def origin_of(request: Request, pairs: list[tuple[str, str]]) -> Origin | None:
    """The run or checkpoint that a form which comes back was filled in from."""
    typed = dict(pairs)
    with request.app.state.db.read() as session:
        return find_origin(session, typed.get("cloned_from", ""), typed.get("fork", ""))


def origin_left(request: Request, pairs: list[tuple[str, str]]) -> Origin | None:
    """Likewise; None where it was deleted meanwhile, which `form_again` tells."""
    try:
        return origin_of(request, pairs)
    except NotFoundError:
        return None
