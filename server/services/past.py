"""What past runs on a device teach of the next ones."""

import hashlib
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from pydantic import ValidationError
from sqlmodel import Session, col, select

from server import planning
from server.db.predictions import past_runs
from server.db.tables import Run
from server.db.workers import resources_of
from server.planning import Correction, Job
from server.services.fleet import Fleet, Target
from server.services.model_shapes import known_shape
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.errors import ConfigError, HookpointError
from sparsify_core.shape import ModelShape

_MEMORY_PRIOR = 0.12


@dataclass(frozen=True)
class Corrections:
    """What past runs on a device taught."""

    speed: Correction
    memory: Correction


class Past(NamedTuple):
    """What arithmetic alone said of a run, and what it needed; by the names of `Prediction`."""

    family: str
    counted: Mapping[str, float]
    actual: Mapping[str, float]


def past_of(session: Session, fleet: Fleet, device: str, settings: Settings, *, keeps: bool = False) -> list[Past]:
    """The newest runs that have ended on a device. Those whose model was not known when they were queued are counted
    now, if somebody has read it since; whoever plans a run of the same model has.

    Args:
        keeps: also store what is counted now, for a session that writes.
    """
    shape, rows = cache(lambda *model: known_shape(settings, *model)), past_runs(session, device)
    uncounted = [row.run_id for row in rows if not row.counted]
    runs = {run.id: run for run in session.exec(select(Run).where(col(Run.id).in_(uncounted)))} if uncounted else {}

    def count(run: Run) -> dict[str, float]:
        known = shape(run.config.get("model", ""), run.config.get("revision"))
        if known is None:
            return {}
        try:
            config = RunConfig.model_validate(run.config)
        except ValidationError:  # of another version of Sparseboard
            return {}
        target = fleet.target(resources_of(run))
        job = job_of(run, config, target, known) if target.key == device else None
        return counted_of(job) if job else {}

    past = [Past(row.family, row.counted or count(runs[row.run_id]), row.actual) for row in rows]
    if keeps:
        for row, one in zip(rows, past, strict=True):
            row.counted = dict(one.counted)
    return past


def job_of(run: Run, config: RunConfig, target: Target, shape: ModelShape | None) -> Job | None:
    """What a run does on a device; None where the model is not known, or the trainer will say what is wrong."""
    if shape is None:
        return None
    behind = (run.forked_step or 0) if config.finetune_state else 0
    num_processes = run.num_processes * run.num_nodes
    try:
        return planning.make_job(config, shape, num_processes=num_processes, device=target.device, first_step=behind)
    except (ConfigError, HookpointError):
        return None


def counted_of(job: Job) -> dict[str, float]:
    """What arithmetic alone says, by the names of `Prediction`."""
    allocated = planning.allocated_bytes(planning.memory_needs(job))
    return {"tokens_per_s": planning.tokens_per_s(job), "memory_bytes": allocated}


def corrections_for(target: Target, past: Sequence[Past], config: RunConfig) -> Corrections:
    """From past runs of the same model and loss on the target's device. Where there are none, each other family of runs
    counts once, and arithmetic as much as all of them: a dozen runs of toy models say little of a real one.
    """
    prior = planning.PRIOR if target.device.is_known else planning.PRIOR_UNKNOWN
    return Corrections(
        _learn(past, config, "tokens_per_s", prior=prior), _learn(past, config, "memory_bytes", prior=_MEMORY_PRIOR)
    )


def family_of(config: RunConfig) -> str:
    """What runs that are alike share: a hash of model and loss."""
    return hashlib.sha256(f"{config.model}\0{config.loss_fn}".encode()).hexdigest()


def _learn(past: Sequence[Past], config: RunConfig, name: str, *, prior: float) -> Correction:
    families: dict[str, list[Past]] = defaultdict(list)
    for one in past:
        families[one.family].append(one)
    alike = _ratios(families[family_of(config)], name)
    others = [ratios for rows in families.values() if (ratios := _ratios(rows, name))]
    if alike or not others:
        return planning.learn(alike, prior=prior)
    learned = planning.learn([1.0] * len(others) + [*map(statistics.median, others)], prior=prior)
    return replace(learned, num_runs=sum(map(len, others)))


def _ratios(past: Iterable[Past], name: str) -> list[float]:
    return [one.actual[name] / one.counted[name] for one in past if name in one.actual and one.counted.get(name)]
