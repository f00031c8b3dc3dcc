"""What a person sees who leaves a page open: the health of a run and the load of a machine, as they change."""

import re
import time

import pytest

from seed import TORCHRUN, sample_at
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
    assert "stuck at 1.2000" in finding.inner_text()
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
    chart = page.locator("figure[data-field=cpu_frac] .plot")
    chart.focus()
    chart.press("End")
    soon(lambda: re.search(r"\d\d:\d\d: \d", page.locator("#charts-live").inner_text()) is not None, True, timeout_s=60)
    chart.press("+")  # all charts share the zoom
    reset = page.get_by_role("button", name="Reset zoom")
    reset.wait_for()
    chart.press("0")
    reset.wait_for(state="hidden")
    page.get_by_role("link", name="1 week").click()
    page.wait_for_url("**?hours=168")
    page.get_by_text("GPU temperature").wait_for()


def test_what_torchrun_reports_is_folded_behind_the_words_of_training(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.FAILED]
    site.settings.run_dir(run_id).log(1).write_text("loading model\nerror: no module matches layers.99\n" + TORCHRUN)
    page = open_page(f"/runs/{run_id}")
    log = page.locator("#log")
    soon(lambda: log.inner_text().rstrip().endswith("layers.99"), True, timeout_s=60)
    page.get_by_role("button", name="What torchrun reports").click()
    assert "ChildFailedError" in log.inner_text()
    page.reload()
    page.get_by_label("Search the log").fill("ChildFailed")
    page.locator("#log-count", has_text="2").wait_for(timeout=60_000)
    page.get_by_label("Search the log").press("Enter")
    log.locator(".line[data-current]:visible", has_text="ChildFailedError").wait_for(timeout=60_000)


def test_where_a_worker_was_away_no_line_is_drawn_and_a_zoom_stays(site: Site, open_page: OpenPage) -> None:
    with site.database.write() as session:
        session.add(sample_at(site.ids["worker"], time.time() - 3500))
    page = open_page(f"/workers/{site.ids['worker']}")
    figure = page.locator("figure[data-field=cpu_frac]")
    over = figure.locator(".u-over")
    over.wait_for()
    label = figure.locator(".plot").get_attribute("aria-label") or ""
    assert re.fullmatch(r"CPU busy over time\. now [\d.]+%, least [\d.]+%, most [\d.]+%\. Arrows move .+", label), label
    width = over.evaluate("element => element.clientWidth")
    over.hover(position={"x": width * 0.25, "y": 40})  # the last half hour was measured, and one moment an hour ago
    assert "\u2013" in figure.locator(".legend").inner_text()
    ticks = figure.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    page.mouse.down()
    over.hover(position={"x": width * 0.9, "y": 40})
    page.mouse.up()
    assert figure.locator("canvas").evaluate("canvas => canvas.toDataURL()") != ticks
    before = int(page.locator("#worker").get_attribute("data-samples") or 0)
    over.hover(position={"x": width - 2, "y": 40})
    edge = figure.locator(".legend").inner_text()
    with site.database.write() as session:
        session.add(sample_at(site.ids["worker"], time.time() + 2))
    soon(lambda: int(page.locator("#worker").get_attribute("data-samples") or 0), before + 1, timeout_s=60)
    over.hover(position={"x": width / 2, "y": 40})
    over.hover(position={"x": width - 2, "y": 40})
    assert figure.locator(".legend").inner_text() == edge  # the same moment stands at the edge


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
    page.get_by_label("Search the log").fill("[RANK")
    hits = page.locator("#log-hits li")
    soon(hits.count, 1, timeout_s=60)
    page.locator("#log-rank").select_option("")
    soon(hits.count, 3, timeout_s=60)

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


def test_a_log_is_read_in_every_attempt_on_every_node_and_up_to_its_beginning(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.STARTING]
    with site.database.write() as session:
        run = session.get_one(Run, run_id)
        run.attempt, run.num_nodes = 2, 2
    of_run = site.settings.run_dir(run_id)
    of_run.log(1).write_text("".join(f"[rank{n % 2}]: line {n} of the first\n" for n in range(4_000)) + "its end")
    of_run.log(2).write_text("[rank0]: step 40/200  of the second\n")
    of_run.log(2, 1).write_text("of the second node\n")
    page = open_page(f"/runs/{run_id}?smooth=0.5&x=tokens")
    log = page.locator("#log")
    log.get_by_text("of the second").wait_for()

    page.get_by_label("Node", exact=True).select_option("1")
    log.get_by_text("of the second node").wait_for(timeout=60_000)
    with of_run.log(2, 1).open("a") as file:
        file.write("which grows\n")
    log.get_by_text("which grows").wait_for(timeout=60_000)  # the stream has the first node alone

    page.get_by_label("Node", exact=True).select_option("0")
    page.get_by_label("Attempt", exact=True).select_option("1")
    log.get_by_text("its end").wait_for(timeout=60_000)
    assert "attempt=1" in (page.locator("#log-download").get_attribute("href") or "")
    while page.locator("#log-earlier").is_visible():
        first = log.locator(".line").first.inner_text()
        page.locator("#log-earlier").click()
        log.get_by_text(first, exact=True).wait_for(timeout=60_000)
        soon(lambda was=first: log.locator(".line").first.inner_text() != was, True, timeout_s=60)
    assert log.locator(".line").first.inner_text().startswith("[rank0]: line 0 of")
    page.locator("#log-later").click()

    page.get_by_label("Process").select_option("1")
    page.get_by_label("Search the log").fill("line 39")
    page.locator("#log-count", has_text="56").wait_for(timeout=60_000)  # of 39, 390 to 399, 3900 to 3999: the odd ones
    page.wait_for_url(lambda url: "find=line+39" in url)
    page.reload()  # the address brings the charts and the log back as they were
    page.locator("#log-count", has_text="56").wait_for(timeout=60_000)
    assert page.get_by_label("Attempt", exact=True).input_value() == "1"
    assert page.get_by_label("Process").input_value() == "1"
    log.get_by_text("line 3999").wait_for()

    page.get_by_label("Attempt", exact=True).select_option("2")
    page.get_by_label("Process").select_option("")
    page.get_by_label("Search the log").fill("second")
    page.locator("#log-count", has_text="1").wait_for(timeout=60_000)
    with of_run.log(2).open("a") as file:
        file.write("[rank1]: one more of the second\n")
    publish_hint(site.settings.redis_url, run_id)
    page.locator("#log-count", has_text="2").wait_for(timeout=60_000)  # the list of matches grows with the log
    log.get_by_text("step 40").click()
    kept = "['zoom', 'smooth', 'x'].map((name) => new URLSearchParams(location.search).get(name))"
    soon(lambda: page.evaluate(kept), ["20~60", "0.5", None], timeout_s=60)
    assert log.get_by_text("one more").count() == 1  # nothing was loaded anew
