"""The page of one worker: its machine over time. And the machines of a run, on its page."""

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from server.auth import CurrentUser
from server.db.runs import nodes_of
from server.db.tables import ACTIVE, Run, Worker, WorkerSample
from server.pages.templating import render
from server.services import runs, samples, workers

router = APIRouter()
RANGES = ((1, "1 hour"), (24, "1 day"), (168, "1 week"), (720, "1 month"))


@dataclass(frozen=True)
class LoadChart:
    """One chart: a field of the samples, or of their devices; `limit` is where its axis ends."""

    field: str
    title: str
    form: Literal["percent", "bytes", "celsius", "watts"]
    of_devices: bool = False
    limit: float = 0


@router.get("/workers/{worker_id}")
def page(
    request: Request, user: CurrentUser, worker_id: str, hours: Literal["1", "24", "168", "720"] = "1"
) -> HTMLResponse:
    """A worker's machine and devices over time, and what it trains."""
    with request.app.state.db.read() as session:
        worker = samples.get_worker(session, worker_id)
        sample = samples.newest_sample(session, worker_id)
        context = {
            "nav": "workers",
            "worker": worker,
            "sample": sample,
            "charts": _charts(worker, sample) if sample else [],
            "active": workers.active_runs(session, worker_id),
            "hours": int(hours),
            "ranges": RANGES,
        }
    return render(request, "worker/page.html", context, user=user)


@router.get("/runs/{run_id}/system")
def system(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """The machines that train a run, with the devices that it has there."""
    with request.app.state.db.read() as session:
        context = system_of(session, runs.get_run(session, run_id))
    return render(request, "run/_system.html", context, user=user)


def system_of(session: Session, run: Run) -> dict[str, Any]:
    """What `run/_system.html` shows: nothing once the run is over."""
    machines = []
    for node in nodes_of(session, run.id, run.fence) if run.state in ACTIVE else []:
        worker, sample = session.get(Worker, node.worker_id), samples.newest_sample(session, node.worker_id)
        if worker is not None and sample is not None:
            devices = [device for device in worker.devices if device["index"] in node.devices]
            machines.append({"worker": worker, "sample": sample, "devices": devices})
    return {"machines": machines}


def _charts(worker: Worker, sample: WorkerSample) -> list[LoadChart]:
    """Those of the machine; of devices what their driver tells."""
    known = {name for device in worker.devices for name in device}
    largest = max((device["memory_bytes"] for device in worker.devices), default=0)
    of_devices = [
        LoadChart("utilization_frac", "GPU busy", "percent", of_devices=True, limit=1),
        LoadChart("used_bytes", "GPU memory", "bytes", of_devices=True, limit=largest),
        LoadChart("temperature_c", "GPU temperature", "celsius", of_devices=True),
        LoadChart("power_w", "GPU power", "watts", of_devices=True),
    ]
    return [
        *(chart for chart in of_devices if chart.field in known),
        LoadChart("cpu_frac", "CPU busy", "percent", limit=1),
        LoadChart("memory_used_bytes", "Memory", "bytes", limit=sample.memory_bytes),
        LoadChart("disk_free_bytes", "Free disk", "bytes"),
    ]
