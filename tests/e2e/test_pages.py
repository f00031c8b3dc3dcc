"""Every page in headless Chromium: strict CSP, readable without script, narrow screens, errors, screenshots."""

import os
import re

import pytest

from server.db.tables import Run, RunState
from server.pages.runs import PAGE_ROWS
from webpage import SCREENSHOTS, OpenPage, Site, soon, violations

pytestmark = [pytest.mark.e2e, pytest.mark.integration]


NAMELESS = """[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button')]
  .filter(e => !e.labels?.length && !e.getAttribute('aria-label') && !e.textContent.trim())
  .map(e => e.outerHTML)"""
"""Controls that a screen reader could not name."""


def paths(site: Site) -> dict[str, str]:
    ids = site.ids
    return {
        "runs": "/runs",
        "runs-none": "/runs?q=nothing-has-this-name",
        "queue": "/queue",
        "run-paused": f"/runs/{ids[RunState.PAUSED]}",
        "run-retry": f"/runs/{ids[RunState.RETRY_WAIT]}",
        "new": "/runs/new",
        "new-blank": "/runs/new?preset=blank",
        "run-running": f"/runs/{ids[RunState.RUNNING]}",
        "run-queued": f"/runs/{ids[RunState.QUEUED]}",
        "run-failed": f"/runs/{ids[RunState.FAILED]}",
        "run-many": f"/runs/{ids['many']}",
        "checkpoint": f"/checkpoints/{ids['checkpoint']}",
        "latent": f"/checkpoints/{ids['checkpoint_many']}?coder=layers.5&latent=17",
        "sweeps": "/sweeps",
        "sweep": f"/sweeps/{ids['sweep']}?sort=fvu",
        "workers": "/workers",
        "worker": f"/workers/{ids['worker']}",
        "settings": "/settings",
        "notices": "/notices",
        "compare": f"/compare?run={ids[RunState.RUNNING]}&run={ids['many']}&run={ids[RunState.COMPLETED]}&sort=-fvu",
        "compare-early": f"/compare?run={ids[RunState.QUEUED]}",
    }


def test_pages_fit_and_raise_no_error(site: Site, open_page: OpenPage) -> None:
    """Set SCREENSHOTS to also keep pictures of every page, both themes, wide and narrow."""
    pictures = bool(os.environ.get("SCREENSHOTS"))
    SCREENSHOTS.mkdir(exist_ok=True)
    for width, theme in [(1440, "light"), (360, "dark"), *([(1440, "dark"), (390, "light")] if pictures else [])]:
        page = open_page("/login", width=width, theme=theme, anonymous=True)
        if pictures:
            page.screenshot(path=SCREENSHOTS / f"login-{theme}-{width}.png", full_page=True)
        page = open_page("/runs", width=width, theme=theme)
        for name, path in paths(site).items():
            page.goto(path)
            assert page.locator("h1").count() == 1, path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert page.evaluate(NAMELESS) == [], path
            if pictures:
                page.wait_for_timeout(400)
                page.screenshot(path=SCREENSHOTS / f"{name}-{theme}-{width}.png", full_page=True)


def test_a_4k_screen_is_used(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs", width=3840)
    assert page.locator("main").evaluate("main => main.clientWidth") > 2500
    page.goto(f"/runs/{site.ids['many']}")
    tops = page.locator("figure.chart").evaluate_all("charts => charts.map((chart) => chart.offsetTop)")
    assert len(set(tops[:4])) == 1  # beside each other
    assert page.evaluate("document.documentElement.scrollWidth") == 3840


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_no_page_shuts_anybody_out(site: Site, open_page: OpenPage, width: int, theme: str) -> None:
    """WCAG 2.1 AA, as far as axe can see it."""
    page = open_page("/login", width=width, theme=theme, anonymous=True)
    found = {"/login": violations(page)}
    page = open_page("/runs", width=width, theme=theme)
    for path in paths(site).values():
        page.goto(path)
        found[path] = violations(page)
    assert [f"{path} {one}" for path, some in found.items() for one in some] == []


def test_pages_hold_no_inline_script_or_style(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs", script=False)
    for path in paths(site).values():
        source = page.request.get(path).text()
        assert not re.search(r"\sstyle=|\son[a-z]+=|javascript:|hx-on|<style", source), path
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", source)), path


def test_pages_are_light(site: Site, open_page: OpenPage) -> None:
    """Scripts and styles of a page, as they travel."""
    page = open_page("/runs")
    entries = "performance.getEntriesByType('resource').filter(e => /\\.(js|css)$/.test(e.name))"
    for path in paths(site).values():
        page.goto(path)
        page.wait_for_load_state("load")
        assert page.evaluate(f"{entries}.length") > 3
        assert page.evaluate(f"{entries}.reduce((sum, e) => sum + e.encodedBodySize, 0)") <= 120_000, path


def test_a_stranger_is_led_to_the_login_and_back(site: Site, open_page: OpenPage) -> None:
    page = open_page("/workers", anonymous=True)
    assert page.url.endswith("/login?next=%2Fworkers")
    code = site.login_path().partition("=")[2]
    page.get_by_label("One-time code").fill(code)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/workers")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")


def test_wrong_fields_show_their_errors_and_keep_the_input(open_page: OpenPage) -> None:
    page = open_page("/runs/new?preset=blank", script=False)
    page.locator("[name='config.model']").fill("<b>owner</b>/model")
    page.locator("[name='config.sae.k']").fill("many")
    page.locator("[name='config.hookpoints']").fill("layers.1\nlayers.2")
    page.get_by_role("button", name="Queue run").click()
    field = page.locator("[name='config.sae.k']")
    assert field.input_value() == "many"
    assert field.get_attribute("aria-invalid") == "true"
    described = (field.get_attribute("aria-describedby") or "").split()
    assert any("valid integer" in page.locator(f"#{i}").inner_text() for i in described)
    assert page.locator("[name='config.model']").input_value() == "<b>owner</b>/model"
    assert page.locator("[name='config.hookpoints']").input_value() == "layers.1\nlayers.2"
    page.locator("#errors a").first.click()
    assert page.url.endswith("#f-config-sae-k")


def test_a_run_is_queued_cloned_and_cancelled_without_javascript(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs/new?preset=demo", script=False)
    page.locator("[name=name]").fill("no script")
    page.get_by_role("button", name="Queue run").click()
    assert re.search(r"/runs/[0-9a-z]{26}$", page.url), page.locator("main").inner_text()[:600]
    run_id = page.url.rsplit("/", 1)[1]
    with site.database.read() as session:
        run = session.get_one(Run, run_id)
        assert (run.name, run.state, run.config["hookpoints"]) == ("no script", "queued", ["layers.5"])
    page.get_by_role("link", name="Clone").click()
    assert page.locator("[name=name]").input_value() == "no script copy"
    assert page.locator("[name='config.hookpoints']").input_value() == "layers.5"
    page.goto(f"/runs/{run_id}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel run").click()
    with site.database.read() as session:
        assert session.get_one(Run, run_id).state == "cancelled"


def test_runs_are_filtered_in_the_address(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs")
    page.locator("form.filters[data-htmx-powered]").wait_for()  # a moment after the page has loaded
    page.keyboard.press("/")
    page.keyboard.type("transcoder")
    page.wait_for_url("**/runs?q=transcoder*")
    rows = page.locator("#runs tbody tr")
    soon(rows.count, 1)
    page.reload()
    assert rows.count() == 1
    assert open_page("/runs?state=failed").locator("#runs tbody tr").count() == 1


def test_older_runs_are_shown_below_or_on_a_page_of_their_own(site: Site, open_page: OpenPage) -> None:
    with site.database.write() as session:
        old = [Run(name=f"old {n:02d}", state="cancelled", config={}, created_at=1000.0 + n) for n in range(30)]
        session.add_all(old)
    page = open_page("/runs")
    rows = page.locator("#runs tbody tr:not(.load-more)")
    assert rows.count() == PAGE_ROWS
    page.get_by_role("link", name="Show older runs").click()
    page.locator("#runs", has_text="old 00").wait_for()
    names = page.locator("#runs .name").all_inner_texts()
    assert len(names) == len(set(names)) > PAGE_ROWS
    plain = open_page("/runs", script=False)
    plain.get_by_role("link", name="Show older runs").click()
    assert "old 00" in plain.locator("#runs").inner_text()


def test_choosing_a_coder_shows_its_latents(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/checkpoints/{site.ids['checkpoint_many']}")
    page.get_by_label("Coder", exact=True).select_option("layers.7")
    page.wait_for_url("**coder=layers.7")
    assert page.get_by_label("Coder", exact=True).input_value() == "layers.7"


def test_latents_are_sorted_paged_and_linked(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/checkpoints/{site.ids['checkpoint']}")
    page.get_by_role("link", name="Density").click()
    page.wait_for_url("**sort=density*")
    page.get_by_role("link", name="Next", exact=True).click()
    page.wait_for_url("**page=1*")
    page.locator(".latents tbody a").first.click()
    page.wait_for_url("**latent=*")
    page.locator(".snippets .peak").first.wait_for()
    shown = page.locator(".chosen h2").inner_text()
    page.reload()
    assert page.locator(".chosen h2").inner_text() == shown
    page.keyboard.press("]")
    soon(lambda: page.locator(".chosen h2").inner_text() != shown, True)


def test_a_chosen_latent_comes_into_sight_where_it_stands_above_the_table(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/checkpoints/{site.ids['checkpoint']}", width=390)
    head = page.locator(".chosen h2")
    for choose in (page.locator(".latents tbody a").last.click, page.get_by_role("link", name="Random").click):
        before = head.inner_text()
        page.locator(".latents tbody a").last.scroll_into_view_if_needed()
        choose()
        soon(lambda before=before: head.inner_text() != before, True)
        soon(lambda: 0 < page.evaluate("document.querySelector('.chosen').getBoundingClientRect().top") < 200, True)


def test_a_refused_push_keeps_the_repository_and_never_shows_the_token(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/checkpoints/{site.ids['checkpoint']}", script=False)
    response = page.request.post(
        f"/checkpoints/{site.ids['checkpoint']}/push",
        form={
            "csrf_token": page.locator("#push-form [name=csrf_token]").get_attribute("value") or "",
            "repo_id": "no-owner",
            "token": "hf_secret",
            "private": "true",
        },
    )
    assert response.status == 422
    assert "no-owner" in response.text()
    assert "hf_secret" not in response.text()


def test_a_token_is_shown_once_and_can_be_revoked(open_page: OpenPage) -> None:
    page = open_page("/settings", script=False)
    page.get_by_label("Name of a new token").fill("notebook")
    page.get_by_role("button", name="Create token").click()
    assert page.locator("#new-token").inner_text().startswith("sb_")
    page.goto("/settings")
    assert page.locator("#new-token").count() == 0
    page.get_by_role("button", name="Revoke notebook").click()
    assert "revoked" in page.locator("tbody").inner_text()


def test_what_does_not_exist_is_said_in_a_page(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs", script=False)
    for path in ("/runs/nothing", "/checkpoints/nothing", "/no-such-page"):
        response = page.request.get(path)
        assert response.status == 404
        assert "<h1>" in response.text()
