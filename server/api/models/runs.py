"""Answers about runs: the runs themselves, what was done to them, their history, views of their list."""

from typing import Any

from pydantic import BaseModel

from server.api.models.base import Model, Value
from server.db.tables import Intent, Run, RunState


class RunOut(Model):
    """A run: what was asked for, where it is, and its newest numbers."""

    id: str
    name: str
    state: RunState
    intent: Intent
    config: dict[str, Any]
    config_version: int
    num_processes: int
    num_nodes: int
    min_memory_bytes: int | None
    labels: list[str]
    priority: int
    rank: float
    """Order inside a priority, lower first."""
    created_at: float
    queued_at: float
    not_before: float | None
    """When the backoff of a run in `retry_wait` ends."""
    started_at: float | None
    finished_at: float | None
    retry_of: str | None
    """The run that this one continues from its newest checkpoint."""
    cloned_from: str | None
    forked_from: str | None
    """The run whose checkpoint, that of `forked_step`, it starts from."""
    forked_step: int | None
    sweep_id: str | None
    """The sweep that it belongs to."""
    attempt: int
    failures: int
    losses: int
    reason_code: str
    """Why a run failed, is in retry wait, or was paused; stable and machine-readable."""
    message: str
    tags: list[str]
    notes: str
    """Markdown."""
    archived_at: float | None
    """When it was put away; lists hide it."""
    waits_for: str
    """Why a queued run has not started."""
    phase: str
    step: int
    total_steps: int
    tokens_per_step: int
    coders: list[str]
    latest: dict[str, Value]


class RunList(BaseModel):
    items: list[RunOut]
    next_cursor: str | None


class RunRow(BaseModel):
    """The fields of a run that were asked for."""

    id: str
    values: dict[str, Any]


class RunTable(BaseModel):
    items: list[RunRow]
    next_cursor: str | None


class StateOut(Model):
    """Where a run is after a request: `stopping` while a worker saves and ends it, else the state that it came to."""

    id: str
    state: RunState
    intent: Intent


class StateList(BaseModel):
    items: list[StateOut]


class OutcomeOut(BaseModel):
    """What became of a request for one run among many."""

    id: str
    name: str
    state: RunState
    is_done: bool
    detail: str
    """Why it was not done."""

    @classmethod
    def of(cls, run: Run, is_done: bool, detail: str) -> "OutcomeOut":
        return cls(id=run.id, name=run.name, state=RunState(run.state), is_done=is_done, detail=detail)


class OutcomeList(BaseModel):
    items: list[OutcomeOut]


class EventOut(Model):
    id: int
    ts: float
    actor: str
    kind: str
    """The state that the run moved to, or what else happened."""
    from_state: str
    reason_code: str
    detail: str


class EventList(BaseModel):
    items: list[EventOut]


class ViewOut(Model):
    """A kept view of the list of runs."""

    id: str
    name: str
    query: str
    """Query string of the page /runs."""
    created_at: float


class ViewList(BaseModel):
    items: list[ViewOut]
