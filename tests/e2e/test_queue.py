"""What people do to runs and to the queue, in the browser: with the mouse, with the keyboard, without JavaScript."""

import time
from typing import Any

import pytest
from sqlmodel import col, select

from rows import add_run, claim_by
from server.db.runs import set_queue_paused
from server.db.tables import TERMINAL, Run, RunState
from server.queue import publish_hint
from webpage import OpenPage, Site, soon

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

NAMES = ("first", "second", "third", "fourth")


@pytest.fixture
def ids(site: Site) -> dict[str, str]:
    """Nothing but four queued runs is unfinished."""
    with site.database.write() as session:
        for run in session.exec(select(Run).where(col(Run.state).not_in(TERMINAL))):
            run.state = RunState.CANCELLED
        session.flush()
        now = time.time()
        return {name: add_run(session, name=name, rank=now + n).id for n, name in enumerate(NAMES)}


def state_of(site: Site, run_id: str) -> str:
    with site.database.read() as session:
        return session.get_one(Run, run_id).state


def stored(site: Site) -> list[str]:
    """Names of the queued runs in the order of the database."""
    with site.database.read() as session:
        queued = select(Run.name).where(Run.state == RunState.QUEUED)
        return list(session.exec(queued.order_by(col(Run.priority).desc(), col(Run.rank))))


def shown(page: Any) -> list[str]:
    return page.locator(".queued .name").all_inner_texts()


def row(page: Any, name: str) -> Any:
    return page.locator(".queued > li", has=page.get_by_role("link", name=name, exact=True))


def reordered(site: Site, page: Any, *names: str) -> None:
    """Wait until page and database agree on the order."""
    soon(lambda: (stored(site), shown(page)), (list(names), list(names)))


def test_a_run_is_paused_and_resumed_without_leaving_its_page(
    site: Site, open_page: OpenPage, ids: dict[str, str]
) -> None:
    page = open_page(f"/runs/{ids['first']}")
    page.evaluate("window.sameDocument = true")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert state_of(site, ids["first"]) == "paused"
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert state_of(site, ids["first"]) == "queued"
    page.locator(".timeline li", has_text="Paused → to queued").wait_for()
    assert page.evaluate("window.sameDocument") is True


@pytest.mark.parametrize("script", [True, False])
def test_a_cancel_asks_first(site: Site, open_page: OpenPage, ids: dict[str, str], *, script: bool) -> None:
    page = open_page(f"/runs/{ids['first']}", script=script)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Keep it").click()
    assert not page.get_by_role("dialog").is_visible()
    assert state_of(site, ids["first"]) == "queued"
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel run").click()
    page.get_by_role("button", name="Retry").wait_for()
    assert state_of(site, ids["first"]) == "cancelled"


@pytest.mark.parametrize(("script", "width"), [(True, 1440), (False, 1440), (True, 360)])
def test_buttons_reorder_the_queue(
    site: Site, open_page: OpenPage, ids: dict[str, str], *, script: bool, width: int
) -> None:
    """On a narrow screen, where nothing can be dragged, they are large enough for fingers."""
    page = open_page("/queue", script=script, width=width)
    assert shown(page) == list(NAMES)
    if width == 360:
        assert not page.locator(".grip").first.is_visible()
        sizes = [button.bounding_box() for button in page.locator(".moves button").all()]
        assert all(min(box["width"], box["height"]) >= 40 for box in sizes)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Move third up").click()
    reordered(site, page, "first", "third", "second", "fourth")
    page.get_by_role("button", name="Move first down").click()
    reordered(site, page, "third", "first", "second", "fourth")
    page.get_by_role("button", name="Move fourth to the front").click()
    reordered(site, page, "fourth", "third", "first", "second")
    soon(page.locator("#said").inner_text, "fourth is now number 1 of 4 in the queue.")
    if script:
        assert page.evaluate("document.activeElement.id") == f"queued-{ids['fourth']}"


def test_a_run_is_dragged_to_its_place(site: Site, open_page: OpenPage, ids: dict[str, str]) -> None:
    page = open_page("/queue")
    bottom = {"x": 40, "y": row(page, "third").bounding_box()["height"] - 4}
    row(page, "first").locator(".grip").drag_to(row(page, "third"), target_position=bottom)
    reordered(site, page, "second", "third", "first", "fourth")
    row(page, "fourth").locator(".grip").drag_to(row(page, "second"), target_position={"x": 40, "y": 4})
    reordered(site, page, "fourth", "second", "third", "first")
    assert page.locator(".is-dragged, .is-ahead, .is-behind").count() == 0


def test_keys_move_the_focused_run_and_it_keeps_the_focus(site: Site, open_page: OpenPage, ids: dict[str, str]) -> None:
    page = open_page("/queue")
    row(page, "third").focus()
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("Alt+ArrowUp")
    reordered(site, page, "third", "first", "second", "fourth")
    soon(page.locator("#said").inner_text, "third is now number 1 of 4 in the queue.")
    assert page.evaluate("document.activeElement.id") == f"queued-{ids['third']}"
    page.keyboard.press("Alt+ArrowUp")  # there is nothing above it
    page.keyboard.press("Alt+ArrowDown")
    reordered(site, page, "first", "third", "second", "fourth")
    assert page.evaluate("document.activeElement.id") == f"queued-{ids['third']}"


def test_a_priority_is_changed_in_its_row(site: Site, open_page: OpenPage, ids: dict[str, str]) -> None:
    page = open_page("/queue")
    field = page.get_by_label("Priority of fourth")
    field.fill("7")
    field.press("Enter")
    reordered(site, page, "fourth", "first", "second", "third")
    assert page.get_by_label("Priority of fourth").input_value() == "7"


def test_the_page_follows_what_others_do(site: Site, open_page: OpenPage, ids: dict[str, str]) -> None:
    page = open_page("/queue")
    page.wait_for_timeout(500)
    with site.database.write() as session:
        session.get_one(Run, ids["second"]).waits_for = "needs 2 GPUs, 1 is free"
        claim_by(session, ids["first"], host="lab", gpus=[1])
    publish_hint(site.settings.redis_url, ids["first"])
    page.locator(f"#active-{ids['first']}", has_text="lab, GPU 1").wait_for(timeout=6000)
    row(page, "second").get_by_text("Needs 2 GPUs, 1 is free").wait_for()
    assert shown(page) == ["second", "third", "fourth"]


@pytest.mark.parametrize("script", [True, False])
def test_chosen_runs_are_cancelled_together(
    site: Site, open_page: OpenPage, ids: dict[str, str], *, script: bool
) -> None:
    page = open_page("/runs", script=script)
    assert page.locator("#bulk").is_visible() is not script
    for name in ("first", "third"):
        page.locator(f"#pick-{ids[name]}").check()
    page.locator("#bulk-cancel-button").click()
    if script:
        page.get_by_role("heading", name="Cancel 2 runs?").wait_for()
    page.get_by_role("button", name="Cancel runs").click()
    soon(lambda: state_of(site, ids["third"]), "cancelled", timeout_s=60)
    if not script:
        page.goto("/runs")
    page.locator(f"#run-{ids['third']}", has_text="Cancelled").wait_for()
    assert [state_of(site, ids[name]) for name in NAMES] == ["cancelled", "queued", "cancelled", "queued"]
    assert page.locator("#bulk").is_visible() is not script


def test_all_that_is_shown_is_chosen_at_once_and_paused(site: Site, open_page: OpenPage, ids: dict[str, str]) -> None:
    page = open_page("/runs?q=state:queued")
    page.get_by_label("Choose all on this page").check()
    soon(lambda: page.locator("#bulk-count").inner_text(), "4 runs chosen")
    page.locator("#bulk").get_by_role("button", name="Pause").click()
    soon(lambda: {state_of(site, run_id) for run_id in ids.values()}, {"paused"})
    soon(page.locator(f"#run-{ids['first']}").count, 0)  # the list is asked anew, and it is one of queued runs


def test_a_failed_run_is_retried_as_a_new_one(site: Site, open_page: OpenPage) -> None:
    failed = site.ids[RunState.FAILED]
    page = open_page(f"/runs/{failed}")
    alert = page.get_by_role("alert").inner_text()
    assert alert.startswith("No module matches the hookpoint layers.99")
    assert "ChildFailedError" not in alert
    page.get_by_role("button", name="Retry").click()
    page.wait_for_url(lambda url: not url.endswith(failed))
    with site.database.read() as session:
        assert session.get_one(Run, page.url.rsplit("/", 1)[1]).retry_of == failed
    page.locator("#head").get_by_role("link", name="gpt2-small resid, all layers").click()
    page.get_by_text("Retried as").wait_for()
    assert page.get_by_role("button", name="Retry").count() == 0


@pytest.mark.parametrize("script", [True, False])
def test_a_paused_queue_is_resumed_from_its_banner(site: Site, open_page: OpenPage, *, script: bool) -> None:
    with site.database.write() as session:
        set_queue_paused(session, paused=True, reason="3 runs in a row failed")
    page = open_page("/runs", script=script)
    banner = page.locator("#banners")
    assert "The queue is paused" in banner.inner_text()
    assert "3 runs in a row failed" in banner.inner_text()
    banner.get_by_role("button", name="Resume queue").click()
    page.wait_for_url("**/queue")
    assert page.locator("#banners").inner_text() == ""


def test_an_answer_that_refuses_is_a_message_and_leaves_the_page(
    site: Site, open_page: OpenPage, ids: dict[str, str]
) -> None:
    page = open_page("/runs")
    page.route("**/events?*", lambda route: route.fulfill(status=204))  # the page does not hear of the claim
    page.goto("/queue")
    with site.database.write() as session:
        claim_by(session, ids["first"])
    page.get_by_role("button", name="Move second up").click()
    page.locator("#toasts", has_text="is starting").wait_for()
    assert page.locator("h1").inner_text() == "Queue"
