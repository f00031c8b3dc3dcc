"""What a person sees who leaves a page open: the health of a run and the load of a machine, as they change."""

import re
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
    legend = page.locator("figure[data-field=utilization_frac] .legend")
    page.locator("figure[data-field=cpu_frac] .u-over").hover()
    soon(lambda: re.search(r"\d\d:\d\d$", legend.inner_text()) is not None, True, timeout_s=60)
    page.get_by_role("link", name="1 week").click()
    page.wait_for_url("**?hours=168")
    page.get_by_text("GPU temperature").wait_for()


LINES = (
    "[rank0]: step 40/200  fvu 0.5000\n",
    "[rank1]: \x1b[31;1mRuntimeError\x1b[0m: <img src=x onerror=alert(1)> out of memory\n",
    "[rank0]: step 41/200  fvu 0.4900\n",
)


def test_a_log_is_coloured_searched_and_followed(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.STOPPING]
    path = site.settings.run_dir(run_id).log(1)
    path.write_text("".join(f"filler {n}\n" for n in range(20_000)) + "".join(LINES))
    page = open_page(f"/runs/{run_id}")
    log = page.locator("#log")
    error = log.locator(".fg-1.bold")
    error.wait_for()
    assert error.inner_text() == "RuntimeError"
    assert log.locator("img").count() == 0
    assert "<img src=x" in log.inner_text()
    assert log.locator("a", has_text="step 41").get_attribute("href") == "?zoom=21~61#chart-fvu"

    page.locator("#log-rank").select_option("1")
    soon(lambda: log.locator(".line:visible").count(), 1, timeout_s=60)
    page.locator("#log-rank").select_option("")

    page.get_by_label("Search the log").fill("FILLER 77")
    page.locator("#log-count", has_text="111").wait_for(timeout=60_000)  # 77, 770 to 779, 7700 to 7799
    page.get_by_label("Search the log").press("Enter")
    log.locator(".line[data-current]", has_text="filler 77").wait_for(timeout=60_000)
    page.locator("#log-count", has_text="1 of 111").wait_for()
    page.get_by_label("Previous match").click()
    log.locator(".line[data-current]", has_text="filler 7799").wait_for(timeout=60_000)

    with path.open("a") as file:
        file.write("[rank0]: saved at the end\n")
    publish_hint(site.settings.redis_url, run_id)
    page.locator("#log-end").click()  # what came meanwhile is not pushed into the middle of the file
    log.locator(".line", has_text="saved at the end").wait_for(timeout=60_000)
    assert page.locator("#log-follow").get_attribute("aria-pressed") == "true"
    page.locator("#log-wrap").click()
    assert log.evaluate("e => getComputedStyle(e).whiteSpace") == "pre"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").first.click()
    assert download.value.suggested_filename == f"{run_id}-1.log"
