"""Plans: what a run would need, how long it would take and when it would start, before it is asked for."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlmodel import Session

from server import planning
from server.db.placing import preview
from server.errors import InvalidError, TooManyRequestsError
from server.numbers import size
from server.planning import Correction, Fix, Job, Warned
from server.scheduling import GB, QueuedRun
from server.services.fleet import Fleet, Offer, Target, resources
from server.services.forecasts import Forecast, forecast_of, memory_of
from server.services.model_shapes import known_answer, shape_of
from server.services.past import corrections_for, past_of
from server.services.requests import RunRequest
from server.services.sources import source_problems
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.errors import ConfigError, HookpointError
from sparsify_core.shape import ModelShape
from sparsify_core.torchrun import as_text, options_to_fill_in, torchrun_command

_USABLE = 0.97
"""Of the memory of a GPU or a machine."""
_GPU = ("on a GPU of", "more GPUs with distribute_modules")
_CPU = ("for a process that has", "a worker with more memory")
_SELF = "plan"


@dataclass(frozen=True)
class Place:
    """In the queue, as it is now. `position` counts from 1; 0: it starts at once."""

    position: int
    waits_for: str


@dataclass(frozen=True)
class Plan:
    """`forecast` is None where the model's shape is not known, or the configuration does not fit it."""

    target: Target
    """What the forecast is about."""
    offers: list[Offer]
    queue: Place
    command: str
    warnings: list[Warned]
    forecast: Forecast | None

    @property
    def planned_for(self) -> str:
        return self.target.where


def shape_for(settings: Settings, config: RunConfig, *, waits: bool) -> tuple[ModelShape | None, str]:
    """The shape of a configuration's model, or why there is none.

    Args:
        waits: read it where that was not done before, which may take a minute.
    """
    if not waits:
        known = known_answer(settings, config.model, config.revision)
        return (known.shape, known.failure) if known else (None, "")
    try:
        return shape_of(settings, config.model, config.revision), ""
    except (InvalidError, TooManyRequestsError) as error:
        return None, error.detail


def make_plan(
    session: Session,
    request: RunRequest,
    *,
    settings: Settings,
    shape: ModelShape | None,
    shape_problem: str = "",
    first_step: int = 0,
) -> Plan:
    """Plan a run as if it were queued now; nothing is written.

    Args:
        shape_problem: why there is no shape, in a sentence.
        first_step: of a fork, the step behind which it goes on.

    Raises:
        InvalidError: the model or the dataset may not be used, or is not there.
    """
    problems = source_problems(request.config, settings)
    if problems:
        raise InvalidError(problems[0].msg, errors=problems)
    wanted, fleet = resources(request), Fleet(session)
    target, offers = fleet.target(wanted), fleet.offers(wanted)
    job, found = _resolve(request, target, shape, shape_problem, first_step)
    forecast = None
    if job is not None:
        corrections = corrections_for(target, past_of(session, fleet, target.key, settings), request.config)
        forecast = forecast_of(job, corrections)
        offers = [replace(offer, fits=_fits(forecast.memory.expected, offer)) for offer in offers]
        found += [*_room(job, forecast, corrections.memory, offers), *_disk(forecast, settings)]
    duration_s = forecast.duration_s.expected if forecast and forecast.duration_s else None
    now = time.time()
    newcomer = QueuedRun(_SELF, request.name or _SELF, wanted, rank=now, duration_s=duration_s)
    _, position, waits_for = preview(session, newcomer, now=now)
    return Plan(
        target=target,
        offers=offers,
        queue=Place(position, waits_for),
        command=command(request, settings),
        warnings=_sorted([*found, *planning.warnings_of(request.config, job)]),
        forecast=forecast,
    )


def command(request: RunRequest, settings: Settings) -> str:
    """What a worker will run on each node; RUN stands for the run's id, HOST for the first node's name."""
    run_dir = settings.run_dir("RUN")
    arguments = ["--config", str(run_dir.config), "--run_dir", str(run_dir.root), "--attempt", "1"]
    options = options_to_fill_in(request.num_nodes)
    return as_text(torchrun_command("python", arguments, num_processes=request.num_processes, options=options))


def _resolve(
    request: RunRequest, target: Target, shape: ModelShape | None, problem: str, first_step: int
) -> tuple[Job | None, list[Warned]]:
    if shape is None:
        text = _sentence(problem or "the model's modules are not known yet")
        return None, [Warned("model_unknown", "info", f"{text} Memory and speed cannot be told.", "config.model")]
    num_processes = request.num_processes * request.num_nodes
    try:
        job = planning.make_job(
            request.config, shape, num_processes=num_processes, device=target.device, first_step=first_step
        )
    except planning.WidthUnknownError as error:
        text = f"{_sentence(str(error))} Memory and speed cannot be told either."
        return None, [Warned("width_unknown", "info", text, "config.hookpoints")]
    except HookpointError as error:
        return None, [Warned("hookpoint_error", "error", _sentence(str(error)), "config.hookpoints")]
    except ConfigError as error:
        return None, [Warned("config_error", "error", _sentence(str(error)))]
    return job, []


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"


def _fits(num_bytes: float, offer: Offer) -> bool | None:
    return num_bytes <= _USABLE * offer.memory_bytes if offer.memory_bytes else None


def _room(job: Job, forecast: Forecast, room: Correction, offers: Sequence[Offer]) -> list[Warned]:
    have = _USABLE * job.device.memory_bytes
    if not have or forecast.memory.high <= have:
        return []

    def fits(changed: Job) -> bool:
        return memory_of(changed, room)[1].expected <= have

    fixes = planning.ways_to_fit(job, fits)
    larger = [offer for offer in offers if offer.fits and offer.memory_bytes > job.device.memory_bytes]
    if larger and job.device.is_gpu:
        gigabytes = min(offer.memory_bytes for offer in larger) // GB
        fixes.append(Fix(f"Wait for a GPU of {gigabytes} GB", {"min_memory_gb": gigabytes}))
    place, way_out = _GPU if job.device.is_gpu else _CPU
    size_text = f"{size(forecast.memory.expected)} {place} {size(job.device.memory_bytes)}"
    if forecast.memory.expected <= have:
        return [Warned("memory_tight", "warning", f"It may not fit: about {size_text}.", "", fixes)]
    largest = max(forecast.needs, key=lambda need: need.num_bytes)
    share = f"{largest.label.lower()} {size(largest.num_bytes)}"
    hint = "" if fixes else f" Choose fewer hookpoints or latents, or {way_out}."
    return [Warned("does_not_fit", "error", f"It does not fit: {size_text}, of that {share}.{hint}", "", fixes)]


def _disk(forecast: Forecast, settings: Settings) -> list[Warned]:
    needed = forecast.disk_bytes + forecast.cache_bytes
    free = shutil.disk_usage(settings.data_dir).free
    if needed <= free:
        return []
    message = f"The disk has {size(free)} left, and the run needs {size(needed)}."
    return [Warned("disk_full", "error", message, "config.keep_last", [Fix("Keep one", {"config.keep_last": 1})])]


def _sorted(found: Sequence[Warned]) -> list[Warned]:
    order = ("error", "warning", "info")
    return sorted(found, key=lambda one: order.index(one.severity))
