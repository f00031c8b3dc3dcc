"""Series at rest: whatever the order of reading, sealing, resuming and reading anew, charts show what the files say."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlmodel import Session, col, func, select

import worker.ingest
import worker.sealing
from rows import add_attempt, add_point, add_run, held_run, stored_points
from server.db.runs import heartbeat, nodes_of
from server.db.series import Buckets, Point, read_series, replay, sealing
from server.db.session import Database
from server.db.tables import Attempt, MetricChunk, MetricPoint, Run, RunState
from server.services import metrics
from server.settings import Settings
from sparsify_core import events
from worker.ending import conclude
from worker.ingest import ingest
from worker.sealing import Sealer, seal_ended, seal_rest

KEYS = ("fvu/a", "lr")
SMALL = 8
"""Rows that become a chunk in these tests, of which three make a whole one."""
VALUES = st.sampled_from([0.25, 1.0, -3.5, 7.0, math.nan, math.inf, -math.inf])
AHEAD = st.sampled_from([0, 1, 1, 1, 2, 3, 40])
WRITES = st.lists(st.tuples(AHEAD, VALUES, st.sampled_from([*KEYS, "both"])), min_size=1, max_size=30)
ACTS = st.one_of(
    st.tuples(st.just("write"), WRITES),
    st.tuples(st.just("write unread"), WRITES),
    st.tuples(st.just("seal"), st.sampled_from([0, 1])),
    st.tuples(st.just("seal the rest"), st.just(0)),
    st.tuples(st.just("resume"), st.integers(0, 9)),
    st.tuples(st.just("read anew"), st.integers(0, 3)),
    st.tuples(st.just("ingest"), st.integers(0, 3)),
)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CHUNK_POINTS", 3 * SMALL)
    monkeypatch.setattr(sealing, "_COARSEST", 2)
    monkeypatch.setattr(worker.ingest, "SEALED_POINTS", 20)
    monkeypatch.setattr(worker.sealing, "HOT_POINTS", SMALL)
    monkeypatch.setattr(worker.sealing, "SEAL_EVENTS", 1)


@dataclass
class Story:
    """A run whose attempts write, are read, sealed and resumed; and what its files say."""

    database: Database
    settings: Settings
    writers: list[events.EventWriter] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    written: list[list[tuple[str, Point]]] = field(default_factory=list)
    last_step: int = 0
    run_id: str = ""

    def __post_init__(self) -> None:
        with self.database.write() as session:
            self.run_id = add_run(session).id
        self.sealer = Sealer(self.database, self.run_id)
        self.resume(0)

    def act(self, what: str, how: int | list[tuple[int, float, str]]) -> None:
        acts: dict[str, Callable[..., None]] = {
            "write": self.write,
            "write unread": self.write_unread,
            "seal": lambda num_events: self.sealer.go_on(num_events),
            "seal the rest": lambda _: seal_rest(self.database, self.run_id),
            "resume": self.resume,
            "read anew": self.read_anew,
            "ingest": self.ingest,
        }
        acts[what](how)

    def write(self, what: list[tuple[int, float, str]]) -> None:
        self.write_unread(what)
        self.ingest(len(self.writers) - 1)

    def write_unread(self, what: list[tuple[int, float, str]]) -> None:
        for ahead, value, keys in what:
            self.last_step += ahead
            self.write_values(dict.fromkeys(KEYS if keys == "both" else (keys,), value))

    def write_values(self, values: dict[str, float]) -> None:
        self.writers[-1].write(events.Metrics(step=self.last_step, values=values))
        attempt = len(self.writers)
        seq = 2 + len({point.seq for _, point in self.written[-1]})
        self.written[-1] += [(key, Point(self.last_step, attempt, seq, 0.0, value)) for key, value in values.items()]

    def resume(self, back: int) -> None:
        """A new attempt, from a checkpoint so many steps ago."""
        attempt, self.last_step = len(self.writers) + 1, max(self.last_step - back, 0)
        with self.database.write() as session:
            add_attempt(session, session.get_one(Run, self.run_id), attempt=attempt)
        self.writers.append(events.EventWriter(self.settings.run_dir(self.run_id).events(attempt), attempt=attempt))
        self.writers[-1].write(events.AttemptStarted(resumed_step=self.last_step))
        self.resumed.append(self.last_step)
        self.written.append([])

    def ingest(self, number: int) -> None:
        attempt = number % len(self.writers) + 1
        ingest(self.database, self.settings.run_dir(self.run_id), self.run_id, attempt)

    def read_anew(self, number: int) -> None:
        with self.database.write() as session:
            attempt = session.get_one(Attempt, (self.run_id, number % len(self.writers) + 1))
            attempt.event_offset = 0
        self.ingest(number)

    def truth(self) -> dict[str, dict[int, Point]]:
        """The points that count among those that have been read, by key and step."""
        with self.database.read() as session:
            found = select(Attempt.attempt, Attempt.event_seq).where(Attempt.run_id == self.run_id)
            read = dict(session.exec(found).all())
        by_key: dict[str, dict[int, Point]] = {}
        for attempt, points in enumerate(self.written, start=1):
            newer = [step for later, step in enumerate(self.resumed, start=1) if later > attempt and read[later]]
            for key, point in points:
                if point.seq <= read[attempt] and point.step <= min(newer, default=point.step):
                    by_key.setdefault(key, {})[point.step] = point
        return {key: dict(sorted(points.items())) for key, points in by_key.items()}


def brute_force(points: dict[int, Point], start: int, end: int, max_points: int) -> tuple[int, list[tuple[float, ...]]]:
    """The width, and the rows of buckets without their times, as plainly as can be."""
    inside = [step for step in points if start <= step <= end]
    widths = (2**n for n in itertools.count())
    width = 1 if len(inside) <= max_points else next(w for w in widths if inside[-1] // w - inside[0] // w < max_points)
    rows = []
    for bucket in range(start // width, end // width + 1):
        within = [point for step, point in points.items() if step // width == bucket]
        finite = [point.value for point in within if math.isfinite(point.value)]
        if within:
            rows.append(
                (within[-1].step, within[-1].value, min(finite, default=math.inf), max(finite, default=-math.inf))
            )
    return width, rows


def rows_of(buckets: Buckets) -> list[tuple[float, ...]]:
    return list(zip(buckets.steps, buckets.values, buckets.lows, buckets.highs, strict=True))


STEPS = [(1, 1.0, "both")] * 11
REPEATED = [
    ("write", [*STEPS, (1, -3.5, "lr")]),
    ("seal the rest", 0),
    ("resume", 0),
    ("write", [(0, 7.0, "lr"), *STEPS]),
]
CUT = [("write", [*STEPS, (1, -3.5, "lr")]), ("seal the rest", 0), ("resume", 6), ("write", [(2, 7.0, "lr")])]


@example(acts=REPEATED, start=3, length=20, max_points=4, limit=30)
@example(acts=[*REPEATED, ("seal the rest", 0)], start=3, length=20, max_points=4, limit=30)
@example(acts=CUT, start=0, length=9, max_points=3, limit=30)
@example(acts=[*CUT, ("seal the rest", 0), ("read anew", 0)], start=0, length=9, max_points=3, limit=30)
@given(
    acts=st.lists(ACTS, min_size=3, max_size=14),
    start=st.integers(0, 80),
    length=st.integers(0, 400),
    max_points=st.integers(2, 40),
    limit=st.integers(1, 30),
)
@hypothesis_settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_charts_and_streams_show_what_the_files_say(
    database: Database,
    settings: Settings,
    acts: list[tuple[str, int | list[tuple[int, float, str]]]],
    start: int,
    length: int,
    max_points: int,
    limit: int,
) -> None:
    story = Story(database, settings)
    for what, how in acts:
        story.act(what, how)
    truth = story.truth()
    for first, last in ((0, 10_000), (start, start + length)):
        with database.read() as session:
            found = read_series(session, [story.run_id], start=first, end=last, max_points=max_points)
        shown = {key: (one.width, rows_of(one.buckets)) for (_, key), one in found.items()}
        expected = {key: brute_force(points, first, last, max_points) for key, points in truth.items()}
        assert repr(sorted(shown.items())) == repr(sorted(item for item in expected.items() if item[1][1]))
    streamed = replayed(story, limit)
    if streamed is not None:
        assert repr(streamed) == repr({key: list(points.items()) for key, points in sorted(truth.items())})


def replayed(story: Story, limit: int) -> dict[str, list[tuple[int, Point]]] | None:
    """What a browser has that hears everything from the beginning; None when it is told to load anew instead."""
    shown: dict[str, dict[int, Point]] = {}
    place, has_more = (0, 0), True
    with story.database.read() as session:
        newest = metrics.position(session, story.run_id)
        while has_more:
            found = replay(session, story.run_id, place, newest, limit=limit)
            if found is None:
                return None
            for key, point in found.points:
                shown.setdefault(key, {})[point.step] = point._replace(ts=0.0)
            place, has_more = found.up_to, found.has_more
    return {key: sorted(points.items()) for key, points in sorted(shown.items())}


def fill(session: Session, run: Run, *, series: int, points: int = SMALL) -> None:
    for number in range(series):
        for seq in range(1, points + 1):
            add_point(session, run, seq, 0.5, key=f"fvu/{number}")


def num_hot(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count()).select_from(MetricPoint)).one()


def test_series_that_fill_at_the_same_step_are_sealed_in_bites(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.sealing, "BUDGET_S", 0.0)
    with database.write() as session:
        run = add_run(session)
        fill(session, run, series=3)
        add_point(session, run, 1, 0.5, key="lr")
    sealer, left = Sealer(database, run.id), []
    for num_events in (SMALL, 0, 0, 0):
        sealer.go_on(num_events)
        left.append(num_hot(database))
    assert left == [2 * SMALL + 1, SMALL + 1, 1, 1]


def test_small_chunks_are_joined_into_whole_ones(database: Database) -> None:
    with database.write() as session:
        run = add_run(session)
    sealer, sizes = Sealer(database, run.id), []
    for bite in range(5):
        with database.write() as session:
            for seq in range(bite * SMALL + 1, (bite + 1) * SMALL + 1):
                add_point(session, run, seq, 0.5, key="lr")
        sealer.go_on(SMALL)
        with database.read() as session:
            chunks = select(MetricChunk.num_points).where(MetricChunk.level == 0)
            sizes.append(list(session.exec(chunks.order_by(col(MetricChunk.first_step)))))
    assert sizes == [[8], [8, 8], [24], [24, 8], [24, 8, 8]]


def test_a_run_that_is_left_alone_is_not_sealed(database: Database, settings: Settings) -> None:
    run_id, fence = held_run(database)
    with database.write() as session:
        (seen,) = nodes_of(session, run_id, fence)
        fill(session, session.get_one(Run, run_id), series=2)
        assert heartbeat(session, run_id, fence) is not None
    assert conclude(database, settings, run_id, fence, actor="reaper", returncode=None, lost=seen) is None
    assert num_hot(database) == 2 * SMALL


def test_what_an_ended_run_has_left_is_sealed_tick_by_tick(database: Database) -> None:
    with database.write() as session:
        ended, going_on = add_run(session, state=RunState.FAILED), add_run(session, state=RunState.RUNNING)
        fill(session, ended, series=2, points=SMALL + 3)
        fill(session, going_on, series=1)
    with database.read() as session:
        before = sorted(stored_points(session, ended.id))
    left = [num_hot(database)]
    while left[-1] > SMALL:  # a tick has half a second, in which a slow machine seals less
        seal_ended(database)
        left.append(num_hot(database))
        assert left[-1] < left[-2]
    assert left[-1] == SMALL
    with database.read() as session:
        assert sorted(stored_points(session, ended.id)) == before
        assert set(session.exec(select(col(MetricChunk.run_id)))) == {ended.id}
