"""What a notice says."""

from dataclasses import dataclass
from typing import Any

from server.db.tables import Run, RunEvent
from server.numbers import named_metric
from server.services.headline import headline
from sparsify_core.metrics import METRICS

EVENTS = {
    "completed": "is complete",
    "failed": "has failed",
    "cancelled": "was cancelled",
    "paused": "is paused",
    "retry_wait": "ended early and will be tried again",
    "watch": "met a watch rule",
    "health": "is in bad health",
    "warning": "has a warning",
}
"""Kinds of events of which people can be told, by channels and by browsers, and what they say of a run."""

USUAL_EVENTS = ("completed", "failed", "watch", "health")
"""Those of which one is told who does not choose."""

TEST = "test"


@dataclass(frozen=True)
class Notice:
    """One event of one run, for people and for programs."""

    title: str
    payload: dict[str, Any]

    @property
    def text(self) -> str:
        """The body of a mail."""
        run = self.payload["run"]
        if run is None:
            return "Notices arrive. This one was a test."
        lines = [self.payload["detail"], run["url"], f"Step {run['step']:,} of {run['total_steps']:,}."]
        known = {name: value for name, value in self.payload["metrics"].items() if value is not None}
        numbers = [f"{name}: {named_metric(name, value)}" for name, value in known.items()]
        return "\n".join(line for line in (*lines, *numbers) if line)


def title_of(name: str, kind: str) -> str:
    """`blue-fox has failed`."""
    return f"{name} {EVENTS[kind]}"


def notice_of(event: RunEvent, run: Run, *, notice_id: str, public_url: str) -> Notice:
    """What is said about an event. Numbers are those of the run now."""
    return Notice(
        title=title_of(run.name, event.kind),
        payload={
            "id": notice_id,
            "event": event.kind,
            "ts": event.ts,
            "reason_code": event.reason_code,
            "detail": event.detail,
            "run": {
                "id": run.id,
                "name": run.name,
                "state": run.state,
                "step": run.step,
                "total_steps": run.total_steps,
                "tokens": run.step * run.tokens_per_step,
                "url": f"{public_url}/runs/{run.id}" if public_url else "",
            },
            "metrics": headline(run.latest),
        },
    )


def test_notice(notice_id: str, ts: float) -> Notice:
    """What the button "Send a test" sends."""
    payload = {"id": notice_id, "event": TEST, "ts": ts, "reason_code": "", "detail": "", "run": None, "metrics": {}}
    return Notice("Sparseboard: a test", payload)


def watchable() -> list[str]:
    """Metrics that a rule can watch: those that have charts."""
    return [name for name, known in METRICS.items() if known.chart]
