"""The health of a run: what its checks found, and a clone that does better."""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from server.auth import CurrentUser
from server.db.runs import nodes_of
from server.db.tables import Run
from server.diagnosis import Evidence, Finding, Result, State
from server.pages.formatting import plain
from server.pages.templating import render
from server.pages.worker import RANGES
from server.services import runs
from server.services.diagnosis import Diagnoses

router = APIRouter()
_OF_MACHINES = {"throughput_fallen"}
"""Findings whose cause the page of a worker shows."""


@dataclass(frozen=True)
class FindingView:
    """A finding, the form with its fix filled in, and the fix in words: `(field, before, after)`.

    Args:
        machine: the page of the worker that may be the cause.
    """

    finding: Finding
    clone: str
    changes: list[tuple[str, str, str]]
    machine: str = ""


@dataclass(frozen=True)
class HealthView:
    """The panel of a run; `clone_all` is the form with every fix filled in, where there are several."""

    findings: list[FindingView]
    passed: list[str]
    waiting: list[str]
    clone_all: str


@router.get("/runs/{run_id}/health")
def panel(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """The panel alone, refetched while the run trains."""
    with request.app.state.db.read() as session:
        context = health_of(session, request.app.state.diagnoses, runs.get_run(session, run_id))
    return render(request, "run/_health.html", context, user=user)


def health_of(session: Session, diagnoses: Diagnoses, run: Run) -> dict[str, Any]:
    """What `run/_health.html` shows."""
    results = diagnoses.of(session, run)
    found = [result.finding for result in results if result.finding is not None]
    health = HealthView(
        findings=[_view(session, run, finding) for finding in found],
        passed=_labels(results, State.OK),
        waiting=_labels(results, State.WAITING),
        clone_all=_clone_with_all(run, found),
    )
    return {"health": health}


def clone_with(run: Run, fix: dict[str, Any]) -> str:
    """The form filled in from a run, with some fields changed."""
    changed = {f"config.{name}": "" if value is None else value for name, value in fix.items()}
    return f"/runs/new?{urlencode({'from': run.id} | changed)}"


def _clone_with_all(run: Run, found: list[Finding]) -> str:
    """Empty unless several fixes differ. Where two change one field, the one that is shown first counts."""
    fixes = [finding.fix for finding in found if finding.fix]
    every = {name: value for fix in reversed(fixes) for name, value in fix.items()}
    return clone_with(run, every) if any(fix != every for fix in fixes) else ""


def _view(session: Session, run: Run, finding: Finding) -> FindingView:
    before = Evidence(run.config)
    changes = [(name, plain(before.option(name), "none"), plain(value, "none")) for name, value in finding.fix.items()]
    machine = _machine(session, run) if finding.code in _OF_MACHINES else ""
    return FindingView(finding, clone_with(run, finding.fix), changes, machine)


def _machine(session: Session, run: Run) -> str:
    """The page of the worker that trains or trained the run, back to then; empty where none did."""
    nodes = nodes_of(session, run.id, run.fence)
    hours_ago = (time.time() - (run.finished_at or time.time())) / 3600
    hours = next((hours for hours, _ in RANGES if hours > hours_ago), RANGES[-1][0])
    return f"/workers/{nodes[0].worker_id}?hours={hours}" if nodes else ""


def _labels(results: list[Result], state: State) -> list[str]:
    return [result.check.label for result in results if result.state == state]
