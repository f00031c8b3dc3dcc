"""What changes in the database reaches an open page: every point once, through reconnects and reloads."""

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlmodel import col, select

from seed import timing_at
from server.db.runs import record, release
from server.db.tables import Checkpoint, MetricPoint, Run, RunState
from server.queue import publish_hint
from webpage import OpenPage, Site, push, soon

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

CHARTS = {"chart-fvu": ("fvu", "eval_fvu"), "chart-dead_frac": ("dead_frac",), "chart-lr": ("lr",)}


def stored(site: Site, run_id: str) -> dict[str, int]:
    """Number of points per chart as the database has them."""
    with site.database.read() as session:
        keys = session.exec(select(MetricPoint.key).where(col(MetricPoint.run_id) == run_id)).all()
    return {chart: sum(key.partition("/")[0] in names for key in keys) for chart, names in CHARTS.items()}


def drawn(page: Any) -> dict[str, int]:
    return {chart: int(page.locator(f"#{chart}").get_attribute("data-points") or 0) for chart in CHARTS}


@pytest.fixture
def run_id(site: Site) -> str:
    return site.ids[RunState.RUNNING]


def test_points_arrive_once_through_reconnects_and_reload(site: Site, open_page: OpenPage, run_id: str) -> None:
    page = open_page(f"/runs/{run_id}")
    soon(lambda: drawn(page), stored(site, run_id))
    page.evaluate("window.sameDocument = true")
    push(site, run_id, range(121, 124))
    soon(lambda: drawn(page), stored(site, run_id))
    for start in (124, 130, 136):  # each time some points come while the stream is down
        page.evaluate("document.dispatchEvent(new CustomEvent('sb-test-drop'))")
        push(site, run_id, range(start, start + 6))
        soon(lambda: drawn(page), stored(site, run_id))
    page.get_by_text("Step 141").wait_for()
    assert page.evaluate("window.sameDocument") is True
    live = page.locator("#chart-fvu .summary tbody").inner_text()
    page.reload()
    soon(lambda: drawn(page), stored(site, run_id))
    assert page.locator("#chart-fvu .summary tbody").inner_text() == live


def test_a_page_that_opens_fetches_nothing_twice(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs")
    page.add_init_script("window.heard = 0; document.addEventListener('sb-run', () => window.heard++, true);")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    run = f"/runs/{site.ids[RunState.COMPLETED]}"
    page.goto(f"{site.url}{run}")
    soon(lambda: page.evaluate("window.heard"), 1)
    page.locator("#chart-fvu canvas").first.wait_for()
    first = parse_qs(urlsplit(page.locator("#first-series").get_attribute("href") or "").query)["key"]
    assert {key.partition("/")[0] for key in first} == {"fvu", "eval_fvu"}
    series = [
        urlsplit(str(url)) for url in page.evaluate("performance.getEntriesByType('resource').map((e) => e.name)")
    ]
    keys = [key for url in series if url.path == f"/api/v1{run}/metrics" for key in parse_qs(url.query)["key"]]
    assert len(keys) == len(set(keys))
    assert set(first) <= set(keys)
    assert not [path for path in asked if path.startswith(f"{run}/")]


def test_points_are_drawn_one_by_one(site: Site, open_page: OpenPage, run_id: str) -> None:
    """How soon is measured by `benchmarks/web_live.py`."""
    page = open_page(f"/runs/{run_id}")
    soon(lambda: drawn(page), stored(site, run_id))
    with site.database.read() as session:
        step = session.get_one(Run, run_id).step
    for number in range(1, 11):
        push(site, run_id, range(step + number, step + number + 1))
        soon(lambda: drawn(page), stored(site, run_id), timeout_s=30)


def test_a_measured_step_is_drawn(site: Site, open_page: OpenPage, run_id: str) -> None:
    page = open_page(f"/runs/{run_id}")
    soon(lambda: drawn(page), stored(site, run_id))
    bars = page.locator("#waterfall .time-bars li")
    before = bars.count()
    with site.database.write() as session:
        session.add(timing_at(run_id, 1234, time.time(), 1234, None))
    publish_hint(site.settings.redis_url, run_id)
    page.locator("#waterfall", has_text="Step 1,234").wait_for(timeout=6000)
    assert bars.count() == before + 1
    assert bars.nth(1).inner_text().startswith("Step 1,234")
    assert page.locator("#waterfall-title").count() == 1


def test_a_checkpoint_leaves_the_lineage_alone_and_a_move_does_not(
    site: Site, open_page: OpenPage, run_id: str
) -> None:
    with site.database.write() as session:
        session.add(Run(name="a clone of it", config=session.get_one(Run, run_id).config, cloned_from=run_id))
    page = open_page(f"/runs/{run_id}")
    page.locator("#lineage", has_text="a clone of it").wait_for()
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    with site.database.write() as session:
        session.add(Checkpoint(run_id=run_id, attempt=1, step=77, path="p", manifest_sha256="0" * 64, size_bytes=1))
    publish_hint(site.settings.redis_url, run_id)
    page.locator("#lists", has_text="Step 77").wait_for(timeout=60_000)
    assert "lineage" not in asked
    with page.expect_request("**/lineage", timeout=60_000):
        with site.database.write() as session:
            record(session, run_id, actor="test", kind="moved", detail="first")
        publish_hint(site.settings.redis_url, run_id)


def test_the_log_follows_and_state_changes_show(site: Site, open_page: OpenPage, run_id: str) -> None:
    page = open_page(f"/runs/{run_id}")
    soon(lambda: drawn(page), stored(site, run_id))
    log = site.settings.run_dir(run_id).log(1)
    with log.open("a") as file:
        file.write("a new line <b>with markup</b>\n")
    publish_hint(site.settings.redis_url, run_id)
    page.locator("#log", has_text="a new line <b>with markup</b>").wait_for(timeout=6000)
    assert page.locator("#log").inner_text().count("a new line") == 1
    assert page.locator("#log").evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 40

    listed = open_page("/runs")
    listed.locator(f"#run-{run_id}", has_text="Running").wait_for()
    listed.wait_for_timeout(500)
    with site.database.write() as session:
        assert release(
            session,
            run_id,
            1,
            RunState.FAILED,
            actor="test",
            outcome="failed",
            message="The disk is full.",
            reason_code="disk_full",
        )
    publish_hint(site.settings.redis_url, run_id)
    page.locator("#head [role=alert]", has_text="The disk is full.").wait_for(timeout=6000)
    page.locator(".timeline", has_text="Failed").wait_for(timeout=6000)
    listed.locator(f"#run-{run_id}", has_text="Failed").wait_for(timeout=6000)
