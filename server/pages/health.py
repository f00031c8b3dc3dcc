"""The health of a run: what its checks found, and a clone that does better."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from server.auth import CurrentUser
from server.db.tables import Run
from server.diagnosis import Evidence, Finding, Result, State
from server.pages.formatting import plain
from server.pages.templating import render
from server.services import runs
from server.services.diagnosis import diagnose_run

router = APIRouter()


@dataclass(frozen=True)
class FindingView:
    """A finding, the form with its fix filled in, and the fix in words: `(field, before, after)`."""

    finding: Finding
    clone: str
    changes: list[tuple[str, str, str]]


@dataclass(frozen=True)
class HealthView:
    """The panel of a run."""

    findings: list[FindingView]
    passed: list[str]
    waiting: list[str]


@router.get("/runs/{run_id}/health")
def panel(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """The panel alone, refetched while the run trains."""
    with request.app.state.db.read() as session:
        context = health_of(session, runs.get_run(session, run_id))
    return render(request, "run/_health.html", context, user=user)


def health_of(session: Session, run: Run) -> dict[str, Any]:
    """What `run/_health.html` shows."""
    results = diagnose_run(session, run)
    health = HealthView(
        findings=[_view(run, result.finding) for result in results if result.finding is not None],
        passed=_labels(results, State.OK),
        waiting=_labels(results, State.WAITING),
    )
    return {"health": health}


def clone_with(run: Run, fix: dict[str, Any]) -> str:
    """The form filled in from a run, with some fields changed."""
    changed = {f"config.{name}": "" if value is None else value for name, value in fix.items()}
    return f"/runs/new?{urlencode({'from': run.id} | changed)}"


def _view(run: Run, finding: Finding) -> FindingView:
    before = Evidence(run.config)
    changes = [(name, plain(before.option(name), "none"), plain(value, "none")) for name, value in finding.fix.items()]
    return FindingView(finding, clone_with(run, finding.fix), changes)


def _labels(results: list[Result], state: State) -> list[str]:
    return [result.check.label for result in results if result.state == state]
