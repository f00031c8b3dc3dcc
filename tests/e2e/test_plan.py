"""The plan beside the launch form follows what is typed, and its fixes fill fields in."""

import pytest

from webpage import OpenPage

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

PATIENCE_MS = 60_000


def test_the_plan_follows_what_is_typed_and_a_fix_fills_fields_in(open_page: OpenPage) -> None:
    page = open_page("/runs/new")
    page.set_default_timeout(PATIENCE_MS)
    plan = page.locator("#plan")
    plan.get_by_text("5.31M parameters").wait_for()
    page.locator("#f-config-sae-expansion_factor").fill("16")
    plan.get_by_text("10.6M parameters").wait_for()
    page.locator("#f-config-batch_size").fill("many")
    plan.get_by_text("The plan waits for 1 field.").wait_for()
    page.locator("#f-config-batch_size").fill("8")
    page.locator("#f-config-lr").fill("9")
    plan.get_by_text("A learning rate of 9 is large").wait_for()
    plan.get_by_role("button", name="Use the usual one").click()
    plan.get_by_text("A learning rate of 9 is large").wait_for(state="detached")
    assert page.locator("#f-config-lr").input_value() == ""
    assert page.url.endswith("/runs/new")


def test_a_fix_is_written_into_the_text_of_a_tab(open_page: OpenPage) -> None:
    page = open_page("/runs/new?preset=demo")
    page.set_default_timeout(PATIENCE_MS)
    page.locator("#f-config-lr").fill("9")
    page.get_by_role("button", name="YAML").click()
    page.locator("h2", has_text="YAML").wait_for()
    page.locator("#plan").get_by_role("button", name="Use the usual one").click()
    page.wait_for_url("**/runs/plan")
    assert "batch_size: 8" in page.locator("#text").input_value()
    assert "lr: 9" not in page.locator("#text").input_value()


def test_the_plan_fits_a_narrow_screen(open_page: OpenPage) -> None:
    page = open_page("/runs/new", width=360, theme="dark")
    page.locator(".plan-facts").wait_for(timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
