"""What every page does alike: keys, first steps, the theme."""

import pytest

from webpage import OpenPage, soon, violations

pytestmark = [pytest.mark.e2e, pytest.mark.integration]


def test_keyboard_opens_help_and_the_form(open_page: OpenPage) -> None:
    page = open_page("/runs")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.wait_for_url("**/runs/new")


def test_the_keyboard_walks_through_rows_and_reaches_the_search_from_everywhere(open_page: OpenPage) -> None:
    page = open_page("/runs")
    page.keyboard.press("c")  # nothing is chosen, so there is nothing to compare
    rows = page.locator("#runs tbody tr:has(a)")
    focused = "document.activeElement.closest('tr')?.id"
    page.keyboard.press("j")
    assert page.evaluate(focused) == rows.nth(0).get_attribute("id")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate(focused) == rows.nth(1).get_attribute("id")
    page.keyboard.press("x")
    assert rows.nth(1).get_by_role("checkbox").is_checked()
    page.keyboard.press("c")
    page.wait_for_url("**/compare?run=*")
    page.goto("/runs")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*")
    page.keyboard.press("/")
    page.wait_for_url("**/runs#search")
    soon(lambda: page.evaluate("document.activeElement.id"), "search")
    page.keyboard.type("jk?")
    assert page.locator("#search").input_value() == "jk?"


def test_first_steps_come_once_and_when_asked_for(open_page: OpenPage) -> None:
    page = open_page("/runs")
    tour = page.locator("#tour")
    tour.get_by_text("Start a run").wait_for()
    assert violations(page) == []
    for title in ("Watch it", "Look inside"):
        tour.get_by_role("button", name="Next").click()
        tour.get_by_text(title).wait_for()
    tour.get_by_role("button", name="Done").click()
    page.goto("/workers")
    assert tour.is_hidden()
    page.keyboard.press("?")
    page.get_by_role("button", name="Show the first steps").click()
    tour.get_by_role("button", name="Skip").click()
    assert tour.is_hidden()


def test_what_needs_scripts_is_hidden_without_them(open_page: OpenPage) -> None:
    assert open_page("/runs").locator("#theme").is_visible()
    assert open_page("/runs", script=False).locator("#theme").is_hidden()


def test_the_theme_is_kept(open_page: OpenPage) -> None:
    page = open_page("/runs")
    background = "getComputedStyle(document.body.parentElement).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(background) != light
    assert 'data-theme="dark"' in page.request.get("/runs/none", headers={"Accept": "text/html"}).text()
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") is None
