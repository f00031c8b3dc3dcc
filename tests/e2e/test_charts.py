"""The charts of a run's page as a reader uses them: one zoom for all, smoothing, axes, keyboard, table, address."""

import time
from typing import TYPE_CHECKING

import pytest
from sqlmodel import col, delete

from rows import add_run
from seed import points_at
from server.db.tables import Attempt, MetricPoint, Run, RunEvent, RunState
from server.queue import publish_hint
from webpage import HIDE, SHOW, OpenPage, Site, soon

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

WAIT_S = 60


def place(page: "Page", chart: str) -> str:
    """Where the chart's legend says that the cursor is."""
    return page.locator(f"#{chart} .legend > span").last.inner_text()


def drawn(page: "Page", chart: str) -> None:
    page.locator(f"#{chart} canvas").first.wait_for(timeout=WAIT_S * 1000)


def drag(page: "Page", chart: str, start: float, end: float) -> None:
    """Drag over the chart from one share of its width to another."""
    area = page.locator(f"#{chart} .u-over").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + start * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + 70, steps=4)
    page.mouse.up()


def zoom(page: "Page") -> list[float]:
    edges = page.evaluate("new URLSearchParams(location.search).get('zoom')")
    return [float(edge) for edge in edges.split("~")] if edges else []


def first_step(page: "Page", chart: str) -> str:
    """The first place in view, by the keyboard."""
    page.locator(f"#{chart} .plot").first.focus()
    page.keyboard.press("Home")
    return place(page, chart)


def test_a_zoom_is_shared_kept_in_the_address_and_taken_back_at_once(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/runs/{site.ids['many']}")
    drawn(page, "chart-fvu")
    drawn(page, "chart-lr")
    drag(page, "chart-fvu", 0.25, 0.5)
    soon(lambda: len(zoom(page)), 2, WAIT_S)
    low, high = zoom(page)
    assert 40 < low < 60
    assert 90 < high < 110
    for chart in ("chart-fvu", "chart-lr"):
        soon(lambda: first_step(page, chart), f"step {int(low) + 1}", WAIT_S)  # noqa: B023 - called at once
    page.get_by_label("X axis").select_option("tokens")
    tokens = pytest.approx([low * 10_240, high * 10_240], rel=0.01)
    soon(lambda: zoom(page) == tokens, True, WAIT_S)
    soon(lambda: first_step(page, "chart-lr").endswith("k tokens"), True, WAIT_S)

    again = open_page(page.url.removeprefix(site.url))
    drawn(again, "chart-lr")
    assert again.get_by_label("X axis").input_value() == "tokens"
    soon(lambda: first_step(again, "chart-lr"), first_step(page, "chart-lr"), WAIT_S)
    again.get_by_role("button", name="Reset zoom").click()
    soon(lambda: zoom(again), [], WAIT_S)
    soon(lambda: first_step(again, "chart-lr"), "10.24k tokens", WAIT_S)
    assert not again.get_by_role("button", name="Reset zoom").is_visible()


def test_keyboard_moves_the_cursor_of_all_charts_and_says_the_values(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/runs/{site.ids['many']}")
    drawn(page, "chart-fvu")
    drawn(page, "chart-lr")
    page.locator("#chart-fvu .plot").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert place(page, "chart-fvu") == place(page, "chart-lr") == "step 11"
    spoken = page.locator("#charts-live").inner_text()
    assert spoken.startswith("step 11: FVU (training batch), layers.3 0.")
    page.keyboard.press("+")
    soon(lambda: len(zoom(page)), 2, WAIT_S)
    page.keyboard.press("0")
    soon(lambda: zoom(page), [], WAIT_S)
    page.keyboard.press("Escape")
    assert place(page, "chart-lr") == ""


def test_smoothing_log_axes_and_small_multiples_are_restored(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/runs/{site.ids['many']}")
    drawn(page, "chart-fvu")
    last = page.locator("#chart-fvu .legend b").first
    measured = last.inner_text()
    page.get_by_label("Smoothing").fill("0.9")
    soon(lambda: last.inner_text().endswith(f" ({measured})"), True, WAIT_S)
    page.locator("#chart-fvu").get_by_role("button", name="Log scale").click()
    page.get_by_label("Log x").check()
    page.get_by_role("button", name="Small multiples").click()
    soon(page.locator("#chart-fvu canvas").count, 3, WAIT_S)
    assert page.locator("#chart-fvu .panel p").all_inner_texts()[0].startswith("layers.3")
    page.get_by_label("Hookpoints", exact=True).fill("layers.7")
    soon(page.locator("#chart-fvu canvas").count, 1, WAIT_S)
    soon(lambda: page.evaluate("new URLSearchParams(location.search).get('show')"), "layers.7", WAIT_S)

    page.reload()
    drawn(page, "chart-fvu")
    assert page.get_by_label("Smoothing").input_value() == "0.9"
    assert page.get_by_label("Log x").is_checked()
    assert page.get_by_role("button", name="Small multiples").get_attribute("aria-pressed") == "true"
    log = page.locator("#chart-fvu").get_by_role("button", name="Log scale")
    assert log.get_attribute("aria-pressed") == "false"
    assert page.locator("#chart-fvu .summary tbody tr").count() == 2


def test_the_legend_says_once_what_the_title_leaves_open(site: Site, open_page: OpenPage) -> None:
    """The table of the chart, which is read alone, names its series in full."""
    page = open_page(f"/runs/{site.ids['many']}")
    drawn(page, "chart-fvu")
    entries = page.locator("#chart-fvu .legend span:has(b)")
    assert [text.split()[0] for text in entries.all_inner_texts()] == 2 * ["layers.3", "layers.5", "layers.7"]
    assert page.locator("#chart-fvu .legend em").all_inner_texts() == ["Training batch", "Held out"]
    assert "FVU (held out), layers.3" in page.locator("#chart-fvu .summary").text_content()
    drawn(page, "chart-lr")
    assert page.locator("#chart-lr .legend").inner_text().strip() == "0.001"


def test_of_200_coders_a_few_are_drawn_at_a_time(site: Site, open_page: OpenPage) -> None:
    coders = [f"layers.{n}.{part}" for n in range(100) for part in ("mlp", "self_attn")]
    with site.database.write() as session:
        run = add_run(session, state=RunState.COMPLETED, coders=coders, attempt=1, step=3, total_steps=3)
        points = [point for step in (1, 2, 3) for point in points_at(run.id, coders, step, 1e9 + step, step)]
        run.latest = {point.key: point.value or 0.0 for point in points}
        session.add_all([Attempt(run_id=run.id, attempt=1, started_at=1e9), *points])
        run_id = run.id
    page = open_page(f"/runs/{run_id}")
    drawn(page, "chart-fvu")
    assert page.get_by_text("1\u201312 of 200").is_visible()
    entries = page.locator("#chart-fvu .legend span:has(b)")
    soon(entries.count, 12, WAIT_S)  # eight come with the page
    page.get_by_label("Hookpoints behind these").click()
    soon(lambda: "layers.6.mlp" in entries.first.inner_text(), True, WAIT_S)
    page.get_by_label("Hookpoints", exact=True).fill(".99.")
    soon(entries.count, 2, WAIT_S)


def test_a_filter_that_matches_nothing_leaves_no_lines(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/runs/{site.ids['many']}")
    drawn(page, "chart-fvu")
    page.get_by_label("Hookpoints", exact=True).fill("nothing")
    soon(page.locator("#chart-fvu canvas").count, 0, WAIT_S)
    assert page.locator("#chart-fvu .legend").inner_text().strip() == ""
    page.get_by_label("Hookpoints", exact=True).fill("")
    drawn(page, "chart-fvu")


def test_a_dragged_slider_changes_the_address_a_few_times(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/runs/{site.ids['many']}")
    drawn(page, "chart-fvu")
    page.evaluate(SLIDE)
    soon(lambda: page.evaluate("new URLSearchParams(location.search).get('smooth')"), "0.99", WAIT_S)
    assert page.evaluate("window.written") < 20


SLIDE = """
const replace = history.replaceState.bind(history);
window.written = 0;
history.replaceState = (...state) => { window.written++; replace(...state); };
const slider = document.querySelector("[name=smooth]");
for (let hundredths = 0; hundredths < 100; hundredths++) {
  slider.value = String(hundredths / 100);
  slider.dispatchEvent(new Event("input"));
}
"""


def test_the_table_has_the_points_in_view(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/runs/{site.ids['many']}?zoom=100~109")
    drawn(page, "chart-lr")
    page.locator("#chart-lr summary").click()
    rows = page.locator("#chart-lr .points tbody tr")
    soon(rows.count, 10, WAIT_S)
    assert rows.first.inner_text().split("\t") == ["step 109", "0.001"]
    assert "All 10 places in view" in page.locator("#chart-lr .points caption").inner_text()


def test_marks_stand_where_the_run_was_saved_went_on_and_warned(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.COMPLETED]
    with site.database.write() as session:
        started = session.get_one(Attempt, (run_id, 1)).started_at
        session.add(Attempt(run_id=run_id, attempt=2, resumed_step=90, started_at=started + 95))
        session.add(
            RunEvent(run_id=run_id, actor="trainer", kind="warning", detail="the disk is slow", ts=started + 40)
        )
    page = open_page(f"/runs/{run_id}")
    drawn(page, "chart-lr")
    page.locator("#chart-lr .plot").focus()
    found = {}
    page.keyboard.press("Home")
    for _ in range(200):
        step, _, mark = place(page, "chart-lr").partition(" · ")
        if mark:
            found.setdefault(mark, step)
        page.keyboard.press("ArrowRight")
    assert set(found) == {"warning: the disk is slow", "attempt 2 goes on from step 90", "checkpoint of step 200"}
    assert abs(int(found["attempt 2 goes on from step 90"].split()[1]) - 90) <= 1
    assert abs(int(found["warning: the disk is slow"].split()[1]) - 40) <= 1


def test_a_resume_takes_points_back_and_a_hidden_tab_catches_up(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.RUNNING]
    page = open_page(f"/runs/{run_id}")
    points = page.locator("#chart-lr")
    soon(lambda: points.get_attribute("data-points"), "120", WAIT_S)
    page.clock.install()
    page.evaluate(HIDE)
    page.clock.fast_forward(11_000)
    resume(site, run_id, after=100, until=130)
    page.evaluate(SHOW)
    soon(lambda: points.get_attribute("data-points"), "130", WAIT_S)
    assert points.locator(".summary td").first.text_content() == "0.002"


def resume(site: Site, run_id: str, *, after: int, until: int) -> None:
    """A second attempt goes on from step `after`, with another learning rate."""
    with site.database.write() as session:
        run = session.get_one(Run, run_id)
        behind = delete(MetricPoint).where(col(MetricPoint.run_id) == run_id, col(MetricPoint.step) > after)
        session.execute(behind)
        session.add(Attempt(run_id=run_id, attempt=2, resumed_step=after, started_at=time.time(), event_seq=until))
        for step in range(after + 1, until + 1):
            for point in points_at(run_id, ["layers.5"], step, time.time(), step):
                point.attempt = 2
                point.value = 2e-3 if point.key == "lr" else point.value
                session.add(point)
        run.attempt, run.step = 2, until
    publish_hint(site.settings.redis_url, run_id)


def test_a_long_series_keeps_its_spike_and_a_zoom_loads_single_steps(site: Site, open_page: OpenPage) -> None:
    run_id = site.ids[RunState.CANCELLED]
    with site.database.write() as session:
        for step in range(74, 4001):
            place = {"run_id": run_id, "attempt": 1, "seq": step + 3, "step": step, "ts": 1e9 + step}
            session.add(MetricPoint(**place, key="lr", value=0.5 if step == 2501 else 1e-3))
    page = open_page(f"/runs/{run_id}?zoom=2490~2510")
    drawn(page, "chart-lr")
    page.locator("#chart-lr summary").click()
    soon(page.locator("#chart-lr .points tbody tr").count, 21, WAIT_S)
    assert page.locator("#chart-lr .points tbody tr", has_text="step 2,501").inner_text().endswith("0.5")
    page.get_by_role("button", name="Reset zoom").click()
    caption = page.locator("#chart-lr .points caption")
    soon(lambda: "the last of its bucket" in caption.inner_text(), True, WAIT_S)
    last, _, greatest, count = page.locator("#chart-lr .summary td").all_inner_texts()
    assert (last, greatest) == ("0.001", "0.5")
    assert int(count.replace(",", "")) <= 1500
