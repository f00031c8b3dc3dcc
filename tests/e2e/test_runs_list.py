"""The list of runs in the browser: search, sort, tag, archive, cancel many, compare, and the way back."""

import pytest
from playwright.sync_api import Page
from sqlmodel import col, select

from rows import add_run
from server.db.tables import Run, RunState
from webpage import OpenPage, Site, soon

pytestmark = [pytest.mark.e2e, pytest.mark.integration]
LIMIT_S = 60


@pytest.fixture(scope="module")
def sweep(site: Site) -> dict[str, str]:
    """Four runs of their own, by name."""
    values = {"state": RunState.COMPLETED, "total_steps": 10, "step": 10}
    with site.database.write() as session:
        runs = [add_run(session, name=f"listed {n}", latest={"fvu/a": 0.4 - n / 10}, **values) for n in range(2)]
        runs += [add_run(session, name=f"listed waiting {n}") for n in range(2)]
        return {run.name: run.id for run in runs}


def names(page: Page) -> list[str]:
    return page.locator("#runs .name").all_inner_texts()


def search(page: Page, text: str) -> None:
    page.locator("#search").fill(text)


def test_a_search_is_typed_explained_sorted_and_left_and_come_back_to(
    open_page: OpenPage, sweep: dict[str, str]
) -> None:
    page = open_page("/runs")
    search(page, "listed kk>3")
    page.locator("#query-problem", has_text="There is no field kk").wait_for()
    assert len(names(page)) > 1
    search(page, "listed fvu>0")
    soon(lambda: names(page), ["listed 1", "listed 0"], LIMIT_S)
    assert page.locator("#query-problem").inner_text() == ""
    page.get_by_role("link", name="FVU (training batch)").click()
    page.locator("#runs th[aria-sort=ascending]", has_text="FVU (training").wait_for()
    page.get_by_role("link", name="FVU (training batch)").click()
    page.locator("#runs th[aria-sort=descending]", has_text="FVU (training").wait_for()
    assert "sort=-fvu" in page.url
    soon(lambda: names(page), ["listed 0", "listed 1"], LIMIT_S)
    page.get_by_role("link", name="Columns").click()
    page.locator("#columns").get_by_label("lr", exact=True).check()
    page.get_by_role("button", name="Show these").click()
    page.wait_for_url("**fields=*")
    assert page.locator("#runs th", has_text="lr").count() == 1
    assert names(page) == ["listed 0", "listed 1"]
    page.locator("#runs .name").first.click()
    page.wait_for_url(f"**/runs/{sweep['listed 0']}")
    page.go_back()
    soon(lambda: names(page), ["listed 0", "listed 1"], LIMIT_S)
    assert page.locator("#search").input_value() == "listed fvu>0"


def test_chosen_runs_are_tagged_archived_cancelled(site: Site, open_page: OpenPage, sweep: dict[str, str]) -> None:
    page = open_page("/runs?q=listed")
    page.get_by_label("Choose listed waiting 1").check()
    page.get_by_label("Choose listed 0").click(modifiers=["Shift"])
    assert page.locator("#bulk-count").inner_text() == "4 runs chosen"
    page.get_by_label("Tag", exact=True).fill("mine")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator("#outcome", has_text="4 runs tagged mine").wait_for()
    page.locator("#runs .tag", has_text="mine").nth(3).wait_for()
    assert page.locator("#bulk").is_hidden()
    page.locator("#pick-all").check()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("heading", name="Cancel 4 runs?").wait_for()
    page.get_by_role("button", name="Keep them").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel runs").click()
    page.locator("#outcome", has_text="2 runs stayed as they are").wait_for()
    page.locator("#runs", has_text="Cancelled").wait_for()
    with site.database.read() as session:
        states = session.exec(select(Run.state).where(col(Run.name).startswith("listed waiting"))).all()
    assert list(states) == ["cancelled", "cancelled"]
    page.get_by_label("Choose listed 1").check()
    page.get_by_role("button", name="Archive").click()
    soon(lambda: "listed 1" in names(page), False, LIMIT_S)
    search(page, "listed archived:yes")
    soon(lambda: names(page), ["listed 1"], LIMIT_S)


def test_runs_are_compared_tagged_and_given_columns_without_javascript(
    site: Site, open_page: OpenPage, sweep: dict[str, str]
) -> None:
    chosen = ["listed 0", "listed waiting 0"]
    page = open_page("/runs?q=listed", script=False)
    page.get_by_role("link", name="Columns").click()
    page.get_by_label("batch_size", exact=True).check()
    page.get_by_role("button", name="Show these").click()
    assert page.locator("#runs th", has_text="batch_size").count() == 1
    for name in chosen:
        page.get_by_label(f"Choose {name}", exact=True).check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?run=*")
    assert all(page.locator(f"a[href='/runs/{sweep[name]}']").count() for name in chosen)
    page.goto(f"/runs/{sweep['listed 0']}")
    page.get_by_text("Add notes, tags, or change the name").click()
    page.get_by_label("Tags", exact=True).fill("by-hand")
    page.get_by_label("Notes", exact=True).fill("*plain*")
    page.get_by_role("button", name="Save").click()
    assert page.locator("#about .tag").inner_text() == "by-hand"
    assert page.locator("#about .notes em").inner_text() == "plain"


def test_a_new_run_never_moves_the_rows_of_a_search(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs?q=owner/model")
    before = names(page)
    page.locator(".conn[data-state=open]").wait_for(state="attached")
    with site.database.write() as session:
        add_run(session, name="listed later")
    page.locator("#stale").wait_for(timeout=1000 * LIMIT_S)
    assert names(page) == before
    page.locator("#stale a").click()
    soon(lambda: names(page), ["listed later", *before], LIMIT_S)


def test_the_list_is_walked_by_keyboard_alone(site: Site, open_page: OpenPage, sweep: dict[str, str]) -> None:
    with site.database.write() as session:
        for n in range(40):
            add_run(session, name=f"walked {n}")
    focused = "document.activeElement.textContent"
    page = open_page("/runs")
    page.keyboard.press("/")
    page.keyboard.type("walked")
    page.locator("#num-found", has_text="40 found").wait_for(timeout=1000 * LIMIT_S)
    page.keyboard.press("Escape")  # out of the field, which keeps what was typed
    assert page.evaluate(focused) == "walked 39"
    assert page.locator("#search").input_value() == "walked"
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.locator("#bulk-tag").focus()
    page.keyboard.type("by-enter")
    page.keyboard.press("Enter")
    page.locator("#outcome", has_text="1 run tagged by-enter").wait_for(timeout=1000 * LIMIT_S)
    page.locator("#runs .tag", has_text="by-enter").wait_for(timeout=1000 * LIMIT_S)
    page.get_by_role("link", name="Run", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#runs th[aria-sort=ascending]").wait_for(timeout=1000 * LIMIT_S)
    soon(lambda: page.evaluate(focused), "Run ↑", LIMIT_S)
    page.locator(".load-more a").focus()
    page.keyboard.press("Enter")
    soon(lambda: page.locator("#runs .name").count(), 40, LIMIT_S)
    soon(lambda: page.evaluate(focused), names(page)[30], LIMIT_S)  # the first of those that came
    page.locator("#pick-all").check()
    page.locator("#everything").check()
    page.locator("#bulk-count", has_text="All 40 runs chosen").wait_for(timeout=1000 * LIMIT_S)


def test_compared_runs_fit_a_narrow_screen(open_page: OpenPage, sweep: dict[str, str]) -> None:
    page = open_page("/compare?fields=all&" + "&".join(f"run={run_id}" for run_id in sweep.values()), width=360)
    assert page.locator(".compared").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
