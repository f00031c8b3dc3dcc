"""What a run will need and how fast it will be, corrected by what past runs on the same device needed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sqlmodel import Session

from server import planning
from server.db.tables import Prediction, Run
from server.db.workers import resources_of
from server.planning import Correction, Duration, Job, Need, Range
from server.services.fleet import Fleet
from server.services.model_shapes import known_shape
from server.services.past import Corrections, corrections_for, counted_of, family_of, job_of, past_of
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.parts import Part


@dataclass(frozen=True)
class Forecast:
    """What is known once the model's shape is. `memory`: of the process that needs most."""

    num_parameters: int
    num_coders: int
    num_steps: int | None
    """That it makes itself, behind `first_step`."""
    first_step: int
    tokens_per_step: int
    needs: list[Need]
    memory: Range
    step_s: dict[Part, float]
    tokens_per_s: Range
    num_past_runs: int
    """That taught the speed of this device."""
    duration: Duration | None
    duration_s: Range | None
    checkpoint_bytes: int
    disk_bytes: int
    """Of all checkpoints at the moment when there are most."""
    kept_bytes: int
    """Of those that are left at the end."""
    cache_bytes: int


def forecast_of(job: Job, corrections: Corrections) -> Forecast:
    """Arithmetic and corrections together."""
    needs, memory = memory_of(job, corrections.memory)
    tokens_per_s = corrections.speed.apply(planning.tokens_per_s(job))
    checkpoint_bytes = planning.checkpoint_bytes(job)
    duration = planning.duration(job, tokens_per_s.expected, checkpoint_bytes)
    return Forecast(
        num_parameters=sum(coder.num_parameters for coder in job.all_coders),
        num_coders=len(job.all_coders),
        num_steps=job.steps_left,
        first_step=job.first_step,
        tokens_per_step=job.tokens_per_step,
        needs=needs,
        memory=memory,
        step_s=planning.step_times(job),
        tokens_per_s=tokens_per_s,
        num_past_runs=corrections.speed.num_runs,
        duration=duration,
        duration_s=None if duration is None else _duration(duration, tokens_per_s),
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=planning.most_bytes(job),
        kept_bytes=planning.kept_bytes(job),
        cache_bytes=planning.cache_bytes(job),
    )


def memory_of(job: Job, correction: Correction) -> tuple[list[Need], Range]:
    """Its parts, corrected, and their sum."""
    needs = planning.memory_needs(job)
    allocated = correction.apply(planning.allocated_bytes(needs))
    needs = planning.corrected(needs, correction.factor)
    beside = sum(need.num_bytes for need in needs) - allocated.expected
    return needs, Range(allocated.expected + beside, allocated.low + beside, allocated.high + beside)


def _duration(duration: Duration, tokens_per_s: Range) -> Range:
    fixed = duration.total_s - duration.varying_s
    slowest, fastest = (
        fixed + duration.varying_s * tokens_per_s.expected / rate for rate in (tokens_per_s.low, tokens_per_s.high)
    )
    return Range(duration.total_s, fastest, slowest)


def predict(session: Session, runs: Iterable[Run], *, settings: Settings) -> None:
    """Keep what new runs are expected to need, so that it can be compared with what they needed. Of those whose model
    nobody has read yet only that is kept, and counted by the first run that is queued after it was (`past_of`).
    """
    fleet, shape = Fleet(session), cache(lambda *model: known_shape(settings, *model))
    past = cache(lambda device: past_of(session, fleet, device, settings, keeps=True))
    for run in runs:
        config = RunConfig.model_validate(run.config)
        target = fleet.target(resources_of(run))
        row = Prediction(run_id=run.id, device=target.key, family=family_of(config))
        job = job_of(run, config, target, shape(config.model, config.revision))
        if job is not None:
            forecast = forecast_of(job, corrections_for(target, past(target.key), config))
            row.counted = counted_of(job)
            row.expected = {name: [one.expected, one.low, one.high] for name, one in _shown(forecast, run).items()}
        session.add(row)


def prediction_of(session: Session, run_id: str) -> Prediction | None:
    """What was predicted for a run; None where nothing was."""
    found = session.get(Prediction, run_id)
    return found if found and found.expected else None


def _shown(forecast: Forecast, run: Run) -> dict[str, Range]:
    size = float(forecast.kept_bytes)
    shown = {
        "tokens_per_s": forecast.tokens_per_s,
        "memory_bytes": forecast.memory,
        "disk_bytes": Range(size, size, size),
    }
    is_retry = run.retry_of is not None  # it goes on in the middle, and only its worker finds where
    return shown | ({"duration_s": forecast.duration_s} if forecast.duration_s and not is_retry else {})
