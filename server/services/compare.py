"""Several runs side by side: where their configurations differ, and what came of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlmodel import Session, col, select

from server.db.tables import Run
from server.errors import InvalidError
from server.services.headline import headline
from server.services.run_fields import RunField, find_field
from server.services.run_values import configured
from server.services.runs import get_run
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.metrics import METRICS, Metric, mean_over_coders

MAX_RUNS = 50


class Difference(NamedTuple):
    """One field of the configuration, with its value in every run."""

    field: RunField
    values: list[Any]
    differs: bool


class Measured(NamedTuple):
    """One metric, with its newest value in every run; `best` are the places of the best ones."""

    metric: Metric
    values: list[float | None]
    best: set[int]


def find_runs(session: Session, run_ids: Sequence[str]) -> list[Run]:
    """The runs, each once. Raises NotFoundError; InvalidError when they are too many."""
    wanted = list(dict.fromkeys(run_ids))
    if len(wanted) > MAX_RUNS:
        raise InvalidError.field(
            ("query", "run"), f"{len(wanted)} runs were chosen, {MAX_RUNS} can be compared.", "run"
        )
    possible = [run_id for run_id in wanted if run_id.isalnum()]
    known = {run.id: run for run in session.exec(select(Run).where(col(Run.id).in_(possible)))}
    return [known.get(run_id) or get_run(session, run_id) for run_id in wanted]


def config_differences(runs: Sequence[Run]) -> list[Difference]:
    """Every field of the configuration, in the order of the form."""
    found = []
    for spec in iter_fields(RunConfig):
        values = [configured(run.config, spec.name, spec.default) for run in runs]
        found.append(Difference(find_field(spec.name), values, any(value != values[0] for value in values)))
    return found


def measured(runs: Sequence[Run]) -> list[Measured]:
    """Every metric that at least one of the runs has."""
    means = [mean_over_coders(run.latest) for run in runs]
    rows = []
    for metric in METRICS.values():
        values = [each.get(metric.name) for each in means]
        if any(value is not None for value in values):
            rows.append(Measured(metric, values, _best(values, metric.better)))
    return rows


def ordered(runs: Sequence[Run], rows: Sequence[Measured], sort: str) -> list[int]:
    """Places of the runs, ordered by a metric of `rows`: the best first, or with `-` before its name the worst.

    Where neither less nor more is better, the least counts as the best. Runs without a value, or with NaN, come last;
    a name that is no metric of `rows` leaves the runs as they were chosen.
    """
    places = range(len(runs))
    row = next((row for row in rows if row.metric.name == sort.removeprefix("-")), None)
    if row is None:
        return list(places)
    known = {place: value for place, value in enumerate(row.values) if value is not None and value == value}
    is_falling = (row.metric.better == "higher") != sort.startswith("-")
    first = sorted(known, key=lambda place: -known[place] if is_falling else known[place])
    return first + [place for place in places if place not in known]


OBJECTIVES = ("L0", "FVU", "Loss increase", "Tokens")


def objectives(run: Run) -> dict[str, float | None]:
    """What runs are traded off by, the less the better."""
    numbers = headline(run.latest)
    tokens = float(run.step * run.tokens_per_step) or None
    return dict(zip(OBJECTIVES, (numbers["l0"], numbers["fvu"], numbers["delta_ce"], tokens), strict=True))


def _best(values: Sequence[float | None], better: str | None) -> set[int]:
    known = [value for value in values if value is not None and value == value]
    if better is None or len(set(known)) < 2:
        return set()
    best = min(known) if better == "lower" else max(known)
    return {place for place, value in enumerate(values) if value == best}
