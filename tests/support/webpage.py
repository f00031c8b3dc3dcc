"""What the page tests share: the running server's facts, a run that trains, waiting for a value."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seed import points_at
from server.auth import issue_login_code
from server.db.session import Database
from server.db.tables import Attempt, Run
from server.queue import publish_hint
from server.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCREENSHOTS = Path(__file__).parents[1] / "e2e" / "screenshots"


@dataclass
class Site:
    """A running server and what is in its database."""

    url: str
    settings: Settings
    database: Database
    ids: dict[str, str]

    def login_path(self) -> str:
        with self.database.write() as session:
            return f"/login#code={issue_login_code(session)}"


OpenPage = Callable[..., "Page"]


AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def violations(page: "Page") -> list[str]:
    """What of WCAG 2.1 AA axe finds to be broken on a page, and where."""
    page.evaluate(AXE.read_text())  # the debugger may, whatever the page's policy says
    found = page.evaluate("tags => axe.run(document, { runOnly: tags, resultTypes: ['violations'] })", _RULES)
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


HIDE = """
Object.defineProperty(document, 'hidden', {get: () => window.isAway, configurable: true});
window.isAway = true;
document.dispatchEvent(new Event('visibilitychange'));
"""
SHOW = "window.isAway = false; document.dispatchEvent(new Event('visibilitychange'));"
"""Scripts that do what a browser does when another tab covers the page, and when it is shown again."""


def push(site: Site, run_id: str, steps: range) -> None:
    """Add points as the worker's ingest does, and hint."""
    with site.database.write() as session:
        run = session.get_one(Run, run_id)
        attempt = session.get_one(Attempt, (run_id, 1))
        for step in steps:
            points = points_at(run_id, ["layers.5"], step, time.time(), step + 3)
            session.add_all(points)
            run.latest = run.latest | {p.key: p.value for p in points}
            run.step, attempt.event_seq = step, step + 3
    publish_hint(site.settings.redis_url, run_id)


def soon(read: Callable[[], object], wanted: object, timeout_s: float = 30) -> None:
    """Wait until `read()` equals `wanted`."""
    end = time.monotonic() + timeout_s
    while (found := read()) != wanted:
        assert time.monotonic() < end, f"still {found!r}, wanted {wanted!r}"
        time.sleep(0.02)
