"""Several runs in the same charts, in headless Chromium."""

import pytest

from seed import points_at
from server.db.tables import Attempt, Run, RunState
from webpage import HIDE, SHOW, OpenPage, Site, push, soon

WAIT_S = 60
pytestmark = [pytest.mark.e2e, pytest.mark.integration]


def test_curves_of_several_runs_share_charts_and_zoom(site: Site, open_page: OpenPage) -> None:
    ids = [site.ids[RunState.RUNNING], site.ids[RunState.COMPLETED]]
    page = open_page(f"/compare?run={ids[0]}&run={ids[1]}")
    page.set_default_timeout(60_000)
    legend = page.locator("#chart-fvu .legend")
    legend.get_by_text("1 ").first.wait_for()
    legend.get_by_text("2 ").first.wait_for()
    assert int(page.locator("#chart-fvu").get_attribute("data-points") or 0) > 100
    page.get_by_label("X axis").select_option("tokens")
    page.wait_for_url("**x=tokens*")
    page.reload()
    assert page.get_by_label("X axis").input_value() == "tokens"
    legend.get_by_text("2 ").first.wait_for()

    def zoom() -> bool:
        """Drag over the middle of the chart; again if it has moved meanwhile, because others came into sight."""
        if "zoom=" not in page.url:
            plot = page.locator("#chart-fvu .u-over").first
            plot.scroll_into_view_if_needed()
            box = plot.bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 20)
            page.mouse.down()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20, steps=4)
            page.mouse.up()
            page.wait_for_timeout(1000)
        return "zoom=" in page.url

    soon(zoom, True, timeout_s=60)
    page.get_by_role("button", name="Reset zoom").click()
    soon(lambda: "zoom=" in page.url, False, timeout_s=60)


def test_small_multiples_name_the_runs_of_all_panels(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/compare?run={site.ids['many']}&run={site.ids[RunState.COMPLETED]}&layout=multiples")
    legend = page.locator("#chart-dead_frac .legend")
    soon(lambda: [text[0] for text in legend.locator("span").all_inner_texts() if text], ["1", "2"], timeout_s=60)
    assert page.locator("#chart-dead_frac .panel p").nth(1).inner_text() == "layers.5"


def test_a_fork_begins_on_its_parents_line_and_the_tables_are_ordered(site: Site, open_page: OpenPage) -> None:
    parent_id = site.ids[RunState.COMPLETED]
    fork_id = add_fork(site, parent_id, step=150, num_steps=90)
    page = open_page(f"/runs/{fork_id}")
    page.set_default_timeout(60_000)
    page.locator(".lineage").get_by_role("link", name="Compare").click()
    page.locator("#chart-fvu .legend").get_by_text("fork of 1 at step 150").wait_for()
    plot = page.locator("#chart-fvu .plot")
    plot.focus()
    where = page.locator("#chart-fvu .legend > span").last
    page.keyboard.press("End")
    assert where.inner_text() == "step 240"
    for _ in range(9):
        page.keyboard.press("Shift+ArrowLeft")
    soon(where.inner_text, "step 150 · 2 is forked here", timeout_s=60)
    page.get_by_label("Marks").uncheck()
    page.wait_for_url("**marks=0*")
    page.locator("#metrics").get_by_role("link", name="FVU (training batch)").click()
    page.wait_for_url("**sort=fvu*marks=0#metrics")
    assert not page.get_by_label("Marks").is_checked()
    heads = page.locator("#metrics thead b")
    assert heads.all_inner_texts() == ["2", "1"]


def test_the_lines_of_runs_that_train_grow_without_being_fetched_again(site: Site, open_page: OpenPage) -> None:
    trains = site.ids[RunState.RUNNING]
    page = open_page(f"/compare?run={site.ids[RunState.COMPLETED]}&run={trains}")
    asked: list[str] = []
    row = page.locator("#chart-fvu .summary tr", has_text="2 SmolLM2").filter(has_text="training batch")
    points = row.locator("td").last
    soon(points.text_content, "120", WAIT_S)
    page.wait_for_load_state("networkidle")
    page.on("request", lambda request: asked.append(request.url))
    board = page.locator("#compared-numbers details")
    board.evaluate("details => { details.open = true; }")
    push(site, trains, range(121, 131))
    soon(points.text_content, "130", WAIT_S)
    page.clock.install()
    page.evaluate(HIDE)
    page.clock.fast_forward(11_000)
    push(site, trains, range(131, 141))
    page.evaluate(SHOW)
    soon(points.text_content, "140", WAIT_S)
    page.evaluate("document.dispatchEvent(new CustomEvent('sb-test-drop'))")
    with site.database.write() as session:
        run = session.get_one(Run, trains)
        run.latest = run.latest | {"eval_kl/layers.5": 0.4321}
    push(site, trains, range(141, 151))
    page.clock.run_for(60_000)
    soon(points.text_content, "150", WAIT_S)
    soon(page.locator("#metrics td", has_text="0.4321").count, 1, WAIT_S)  # they follow, and leave open what was opened
    assert board.get_attribute("open") is not None
    assert [url for url in asked if "key=fvu" in url] == []
    live = page.locator("#chart-fvu .summary tbody").text_content()
    page.reload()
    soon(page.locator("#chart-fvu .summary tbody").text_content, live, WAIT_S)


def test_a_run_that_begins_gets_its_charts(site: Site, open_page: OpenPage) -> None:
    begins = site.ids[RunState.STARTING]
    page = open_page(f"/compare?run={begins}")
    curves, runs = page.locator("#curves"), page.locator("#compared-runs")
    soon(lambda: (curves.is_visible(), runs.locator(".badge").inner_text()), (False, "Starting"), WAIT_S)
    with site.database.write() as session:
        session.get_one(Run, begins).state = RunState.RUNNING
    push(site, begins, range(1, 4))
    page.locator("#chart-fvu canvas").wait_for(timeout=1000 * WAIT_S)
    soon(runs.locator(".badge").inner_text, "Running", WAIT_S)
    assert page.locator("#chart-fvu").get_attribute("data-points") == "3"
    assert not page.locator("#chart-eval_kl").is_visible()


def add_fork(site: Site, parent_id: str, *, step: int, num_steps: int) -> str:
    """A run from the weights of a checkpoint, which counts its steps from 0 again and gets further."""
    with site.database.write() as session:
        parent = session.get_one(Run, parent_id)
        place = {"forked_from": parent.id, "forked_step": step, "attempt": 1, "step": num_steps}
        latest = {"fvu/layers.5": 0.1}
        fork = Run(name="a fork", state=RunState.COMPLETED, config=parent.config, latest=latest, **place)
        fork.tokens_per_step = parent.tokens_per_step
        session.add(fork)
        session.flush()
        session.add(Attempt(run_id=fork.id, attempt=1, started_at=1e9))
        for own in range(1, num_steps + 1):
            points = points_at(fork.id, ["layers.5"], own, 1e9 + own, own)
            session.add_all([point for point in points if point.key in latest])
        return fork.id
