"""Notices in the browser: switched on and off, also heard by one hidden tab; channels and rules by form."""

from typing import TYPE_CHECKING

import pytest

from rows import add_run
from server.db.runs import record
from server.db.tables import RunState
from server.queue import publish_hint
from webpage import HIDE, SHOW, OpenPage, Site, soon

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

RECORD = """
  window.told = [];
  window.Notification = class {
    static permission = "default";
    static async requestPermission() { return (this.permission = "granted"); }
    constructor(title, { body }) { window.told.push(`${title}: ${body}`); }
  };
"""
"""Stands in for the desktop, which a headless browser does not have."""
SWITCH_ON = "Notification.permission = 'granted'; localStorage.setItem('notices', 'completed,watch');"


def tell(site: Site, run_id: str, kind: str) -> None:
    with site.database.write() as session:
        record(session, run_id, actor="test", kind=kind, detail="as it was")
    publish_hint(site.settings.redis_url, run_id)


def add_told_run(site: Site, name: str) -> str:
    with site.database.write() as session:
        return add_run(session, name=name).id


def test_the_browser_tells_of_what_was_chosen(site: Site, open_page: OpenPage) -> None:
    run_id = add_told_run(site, "told-of")
    page = open_page("/notices")
    page.add_init_script(RECORD)
    page.reload()
    form = page.locator("#notify")
    form.get_by_label("is complete").uncheck()
    form.get_by_label("ended early").check()
    page.get_by_role("button", name="Notify me").click()
    page.get_by_role("button", name="Stop notifying me").wait_for()
    soon(lambda: page.evaluate("localStorage.getItem('notices-told')") is not None, True, timeout_s=60)
    for kind in ("completed", "retry_wait"):
        tell(site, run_id, kind)
    wanted = ["told-of ended early and will be tried again: as it was"]
    soon(lambda: page.evaluate("window.told"), wanted, timeout_s=60)
    form.get_by_label("is complete").check()
    tell(site, run_id, "completed")
    soon(lambda: page.evaluate("window.told"), [*wanted, "told-of is complete: as it was"], timeout_s=60)
    page.add_init_script("Notification.permission = 'granted';")
    page.goto("/workers")  # where nothing is told of again
    tell(site, run_id, "watch")
    soon(lambda: page.evaluate("window.told"), ["told-of met a watch rule: as it was"], timeout_s=60)
    page.goto("/notices")
    assert form.get_by_label("ended early").is_checked()
    page.get_by_role("button", name="Stop notifying me").click()
    page.get_by_role("button", name="Notify me").wait_for()
    assert page.evaluate("localStorage.getItem('notices')") == ""


def test_pages_that_follow_something_else_tell_too(site: Site, open_page: OpenPage) -> None:
    run_id = add_told_run(site, "told-beside")
    page = open_page("/settings")
    page.add_init_script(RECORD + SWITCH_ON)
    for path in ("/runs", f"/runs/{site.ids[RunState.COMPLETED]}", f"/workers/{site.ids['worker']}"):
        page.goto(path)
        page.locator(".conn[data-state=open]").wait_for(state="attached")
        tell(site, run_id, "completed")
        soon(lambda: page.evaluate("window.told"), ["told-beside is complete: as it was"], timeout_s=60)


SWITCHED_ON = """
  window.Notification = class { static permission = "granted"; };
  localStorage.setItem("notices", "completed");
  window.streams = [];
  window.EventSource = class extends EventSource {
    constructor(url) { super(url); window.streams.push(this); }
  };
"""
HELD = "navigator.locks.query().then(({ held }) => held.length)"


def is_awake(tab: "Page") -> bool:
    return bool(tab.evaluate("window.streams.at(-1).readyState !== EventSource.CLOSED"))


def hide(tab: "Page") -> None:
    """Cover a tab for longer than it waits before it gives its connection back."""
    tab.evaluate(HIDE)
    tab.clock.fast_forward(11_000)


def test_one_hidden_tab_at_most_stays_awake(open_page: OpenPage) -> None:
    context = open_page("/notices").context
    context.add_init_script(SWITCHED_ON)
    first, second = context.new_page(), context.new_page()
    for tab in (first, second):
        tab.clock.install()
        tab.goto("/notices")
        tab.locator(".conn[data-state=open]").wait_for(state="attached")
    hide(first)
    soon(lambda: first.evaluate(HELD), 1, timeout_s=60)
    hide(second)
    soon(lambda: is_awake(second), False, timeout_s=60)
    assert is_awake(first)
    first.evaluate(SHOW)
    soon(lambda: first.evaluate(HELD), 0, timeout_s=60)
    second.evaluate(SHOW)
    hide(second)
    soon(lambda: second.evaluate(HELD), 1, timeout_s=60)
    assert is_awake(second)


def test_a_channel_and_a_rule_by_form(site: Site, open_page: OpenPage) -> None:
    page = open_page("/notices")
    page.get_by_label("Address").fill("https://10.1.2.3/hook")
    page.get_by_role("button", name="Add channel").click()
    page.get_by_role("alert").get_by_text("inside the own network").wait_for()
    page.get_by_label("Address").fill("https://example.org/hook")
    page.get_by_role("button", name="Add channel").click()
    assert page.locator("#new-key").inner_text().startswith("whsec_")
    page.get_by_label("value").fill("40%")
    page.get_by_label("from").fill("20M")
    page.get_by_role("button", name="Try it on past runs").click()
    page.get_by_role("status").get_by_text("FVU (training batch) > 0.4").wait_for()
    page.reload()
    page.get_by_role("status").get_by_text("FVU (training batch) > 0.4").wait_for()
    assert page.get_by_label("from").input_value() == "20M"
    page.get_by_role("button", name="Add rule").click()
    page.locator("#rules strong").get_by_text("FVU (training batch) > 0.4").wait_for()
    page.get_by_role("link", name="Edit").click()
    page.get_by_role("heading", name="Change this rule").wait_for()
    page.get_by_label("value").fill("70%")
    page.get_by_role("button", name="Try it on past runs").click()
    page.get_by_role("status").get_by_text("FVU (training batch) > 0.7").wait_for()
    page.get_by_role("button", name="Save rule").click()
    page.locator("#rules strong").get_by_text("FVU (training batch) > 0.7").wait_for()
    assert page.locator("#rules > .items > li").count() == 1
    page.locator("#rules").get_by_role("button", name="Delete").first.click()
    page.get_by_role("button", name="Delete rule").click()
    page.get_by_text("No rules yet").wait_for()
    page.locator("#channels").get_by_role("button", name="Delete").first.click()
    page.get_by_role("button", name="Delete channel").click()
    page.get_by_text("No channels yet").wait_for()
