"""What a person sees who leaves a page open: the health of a run and the load of a machine, as they change."""

import time

import pytest

from seed import sample_at
from server.db.tables import Attempt, MetricPoint, Run, RunState
from server.queue import publish_hint
from webpage import OpenPage, Site, soon

pytestmark = [pytest.mark.e2e, pytest.mark.integration]


def test_a_finding_appears_while_the_run_trains(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.RUNNING]
    page = open_page(f"/runs/{run_id}")
    health = page.locator(".health")
    health.get_by_text("checks passed").wait_for()
    assert health.locator(".findings").count() == 0
    with site.database.write() as session:
        run = session.get_one(Run, run_id)
        for step in range(200, 301):
            point = {"run_id": run_id, "attempt": 1, "seq": step + 3, "key": "fvu/layers.5", "step": step}
            session.add(MetricPoint(**point, ts=time.time(), value=1.2))
        run.step, session.get_one(Attempt, (run_id, 1)).event_seq = 300, 303
        run.latest = run.latest | {"fvu/layers.5": 1.2}
    publish_hint(site.settings.redis_url, run_id)
    finding = page.locator("#finding-fvu_stuck")
    finding.wait_for(timeout=60_000)
    assert "stuck at 1.200" in finding.inner_text()
    assert "lr" in finding.locator(".changes").inner_text()
    finding.get_by_role("link", name="Clone with fix").click()
    page.wait_for_url(f"**/runs/new?from={run_id}&config.lr=*")


def test_a_new_sample_is_drawn_on_the_worker_page(site: Site, open_page: OpenPage) -> None:
    page = open_page("/workers")
    page.get_by_role("link", name="lab-2").first.click()
    page.wait_for_url(f"**/workers/{site.ids['worker']}")
    shown = page.locator("#worker")
    page.locator("figure[data-field=utilization_frac] canvas").wait_for()
    assert page.locator("figure[data-field=utilization_frac] .legend").inner_text().count("GPU") == 2
    before = int(shown.get_attribute("data-samples") or 0)
    with site.database.write() as session:
        session.add(sample_at(site.ids["worker"], time.time() + 1))
    soon(lambda: int(shown.get_attribute("data-samples") or 0), before + 1, timeout_s=60)
    page.get_by_role("link", name="1 week").click()
    page.wait_for_url("**?hours=168")
    page.get_by_text("GPU temperature").wait_for()
