"""Event files -> database rows, exactly once.

Rows and the compare-and-set of the attempt's offset commit in one transaction, so a killed or doubled ingester leaves
neither a gap nor a duplicate; the file stays the truth.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from server.db.runs import note_first_step, record, storable
from server.db.series import Point, add_points, as_json, begun_again, drawn_on, seal_points, take_back
from server.db.session import Database
from server.db.tables import Attempt, Checkpoint, MetricChunk, MetricPoint, Run, RunEvent, RunState, StepTiming
from server.db.tables.values import store_metrics
from sparsify_core import events
from sparsify_core.metrics import series_key
from sparsify_core.rundir import CheckpointDir, RunDir

SEALED_POINTS = 1024
"""So many points of a series at once, as ingest finds them when it has fallen behind, are sealed right away."""


def ingest(database: Database, run_dir: RunDir, run_id: str, attempt: int) -> int:
    """Bring all whole lines of an attempt's event file into the database. Returns how many events were new.

    An attempt whose offset was set back to 0 is read anew.
    """
    total = 0
    while True:
        count = _ingest_block(database, run_dir, run_id, attempt)
        if count == 0:
            return total
        total += count


def _ingest_block(database: Database, run_dir: RunDir, run_id: str, attempt: int) -> int:
    with database.read() as session:
        offset = session.exec(
            select(Attempt.event_offset).where(Attempt.run_id == run_id, Attempt.attempt == attempt)
        ).one()
    block = list(events.read_events(run_dir.events(attempt), offset))
    if not block:
        return 0
    with database.write() as session:
        # The run's row first, then the attempt's, as whoever releases the run does.
        run = session.get_one(Run, run_id, with_for_update=True)
        moved = (
            update(Attempt)
            .where(col(Attempt.run_id) == run_id, col(Attempt.attempt) == attempt, col(Attempt.event_offset) == offset)
            .values(event_offset=block[-1][1], event_seq=block[-1][0].seq)
        )
        if session.execute(moved).rowcount:  # type: ignore[attr-defined]
            if offset == 0:
                _forget(session, run_id, attempt)
            _Batch(session, run_dir, run, attempt).apply([event for event, _ in block])
        # Otherwise another ingester was faster: its offset is read in the next round.
    return len(block)


def _forget(session: Session, run_id: str, attempt: int) -> None:
    """What an attempt has written into the series before, if anything."""
    for table in (MetricPoint, MetricChunk, StepTiming):
        session.execute(delete(table).where(col(table.run_id) == run_id, col(table.attempt) == attempt))


@dataclass
class _Batch:
    """The events of one block, on their way into one transaction."""

    session: Session
    run_dir: RunDir
    run: Run
    attempt: int

    @property
    def run_id(self) -> str:
        return self.run.id

    def apply(self, block: list[events.Event | events.UnknownEvent]) -> None:
        run = self.run
        newest = run.attempt == self.attempt
        last_step = self._superseded_after()
        latest = dict(run.latest)
        values: dict[str, Any] = {}
        points: dict[str, list[Point]] = defaultdict(list)
        for event in block:
            match event:
                case events.AttemptStarted():
                    self._start(event)
                    values |= {"step": event.resumed_step, "spark": begun_again(run.spark, event.resumed_step)}
                case events.Phase():
                    values["phase"] = (f"{event.name}: {event.detail}" if event.detail else event.name)[:200]
                case events.TrainingPlanned():
                    values |= event.model_dump(include={"total_steps", "tokens_per_step", "coders"})
                case events.Metrics() if last_step is None or event.step <= last_step:
                    for key, value in event.values.items():
                        points[key].append(Point(event.step, self.attempt, event.seq, event.ts, value))
                    latest |= {key: as_json(value) for key, value in event.values.items()}
                    values |= {"step": event.step, "latest": latest}
                case events.StepTimed() if last_step is None or event.step <= last_step:
                    self._timing(event)
                case events.CheckpointSaved():
                    self._checkpoint(event)
                case events.Warned():
                    self._tell("warning", event.message, event.ts)
                case _:
                    pass  # the end is judged by the supervisor; what is unknown stays in the file
        self._keep(points)
        values |= self._spark(points, values)
        if newest and values:
            self.session.execute(update(Run).where(col(Run.id) == self.run_id).values(**values))
        if newest and points:
            store_metrics(self.session, self.run_id, latest)
        if newest and points and run.state == RunState.STARTING:
            note_first_step(self.session, self.run_id, self.attempt)

    def _superseded_after(self) -> int | None:
        """The step from which a newer attempt went on; points beyond it would double the curve."""
        newer = select(func.min(Attempt.resumed_step)).where(
            Attempt.run_id == self.run_id, Attempt.attempt > self.attempt, Attempt.event_seq > 0
        )
        return self.session.exec(newer).one()

    def _start(self, event: events.AttemptStarted) -> None:
        if event.resumed_step:
            self._tell("resumed", f"from the checkpoint of step {event.resumed_step}", event.ts)
        mine = update(Attempt).where(col(Attempt.run_id) == self.run_id, col(Attempt.attempt) == self.attempt)
        self.session.execute(mine.values(resumed_step=event.resumed_step))
        for table in (MetricPoint, StepTiming):
            superseded = delete(table).where(
                col(table.run_id) == self.run_id,
                col(table.attempt) < self.attempt,
                col(table.step) > event.resumed_step,
            )
            self.session.execute(superseded)
        take_back(self.session, self.run_id, attempt=self.attempt, behind=event.resumed_step)

    def _tell(self, kind: str, detail: str, ts: float) -> None:
        """Into the run's history, unless it is there from an earlier reading of the file."""
        same = (RunEvent.run_id == self.run_id, RunEvent.kind == kind, RunEvent.ts == ts)
        if self.session.exec(select(RunEvent.id).where(*same, RunEvent.detail == storable(detail))).first() is None:
            record(self.session, self.run_id, actor="trainer", kind=kind, detail=detail, ts=ts)

    def _keep(self, points: dict[str, list[Point]]) -> None:
        many = {key: found for key, found in points.items() if len(found) >= SEALED_POINTS}
        for key, found in many.items():
            seal_points(self.session, self.run_id, key, found)
        add_points(self.session, self.run_id, {key: found for key, found in points.items() if key not in many})

    def _spark(self, points: dict[str, list[Point]], values: dict[str, Any]) -> dict[str, Any]:
        """The run's sparkline with what is new of the first coder's FVU."""
        coders = values.get("coders", self.run.coders)
        found = points.get(series_key("fvu", coders[0])) if coders else None
        return {"spark": drawn_on(values.get("spark", self.run.spark), found)} if found else {}

    def _timing(self, event: events.StepTimed) -> None:
        values = event.model_dump(include={"seq", "step", "ts", "total_ms", "parts_ms", "floor_ms"})
        self.session.add(StepTiming(run_id=self.run_id, attempt=self.attempt, **values))

    def _checkpoint(self, event: events.CheckpointSaved) -> None:
        existing = self.session.exec(
            select(Checkpoint).where(Checkpoint.run_id == self.run_id, Checkpoint.step == event.step)
        ).first()
        if existing and existing.attempt > self.attempt:
            return  # a newer attempt has saved this step again
        checkpoint = existing or Checkpoint(
            run_id=self.run_id, step=event.step, attempt=0, path="", manifest_sha256="", size_bytes=0
        )
        checkpoint.attempt = self.attempt
        checkpoint.path = event.path
        checkpoint.manifest_sha256 = event.manifest_sha256
        checkpoint.size_bytes = event.size_bytes
        checkpoint.evaluation = {
            coder: {name: as_json(value) for name, value in values.items()}
            for coder, values in event.evaluation.items()
        }
        checkpoint.created_at = event.ts
        self.session.add(checkpoint)


def prune_checkpoints(database: Database, run_dir: RunDir, run_id: str) -> int:
    """Delete the rows of checkpoints that the trainer has deleted (`keep_last`). Returns how many there were."""
    if not run_dir.checkpoints.is_dir():  # never: an unmounted disk would look like this too
        return 0
    with database.read() as session:
        rows = session.exec(select(Checkpoint).where(Checkpoint.run_id == run_id)).all()
    gone = [row.id for row in rows if not CheckpointDir(run_dir.root / row.path).manifest.is_file()]
    if gone:
        with database.write() as session:
            session.execute(delete(Checkpoint).where(col(Checkpoint.id).in_(gone)))
    return len(gone)
