"""What the runs of a sweep would need together."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from sqlmodel import Session

from server.planning import Range, make_job
from server.services.fleet import Fleet, resources
from server.services.forecasts import Forecast, forecast_of
from server.services.model_shapes import known_shape
from server.services.past import corrections_for, past_of
from server.services.requests import RunRequest
from server.services.sweep_spec import PlannedRun
from server.settings import Settings
from sparsify_core.errors import ConfigError, HookpointError


class SweepPlan(NamedTuple):
    """Seconds are of one run after another."""

    num_runs: int
    duration_s: Range | None
    """None where that of a run is not known."""
    largest: PlannedRun
    """The one that needs most memory; the first where no model's shape is known."""


def plan_runs(session: Session, planned: Sequence[PlannedRun], settings: Settings) -> SweepPlan:
    """Sum up the runs of a sweep; models that nobody has read yet are not read."""
    fleet, shape = Fleet(session), cache(lambda *model: known_shape(settings, *model))
    past = cache(lambda device: past_of(session, fleet, device, settings))

    def forecast(request: RunRequest) -> Forecast | None:
        target, known = fleet.target(resources(request)), shape(request.config.model, request.config.revision)
        if known is None:
            return None
        num_processes = request.num_processes * request.num_nodes
        try:
            job = make_job(request.config, known, num_processes=num_processes, device=target.device)
        except (ConfigError, HookpointError):  # the plan of the run itself says so
            return None
        return forecast_of(job, corrections_for(target, past(target.key), request.config))

    forecasts = [forecast(one.request) for one in planned]
    needs = [one.memory.expected if one else 0.0 for one in forecasts]
    times = [one.duration_s for one in forecasts if one and one.duration_s]
    total = Range(sum(t.expected for t in times), sum(t.low for t in times), sum(t.high for t in times))
    largest = planned[needs.index(max(needs))]
    return SweepPlan(len(planned), total if len(times) == len(planned) else None, largest)
