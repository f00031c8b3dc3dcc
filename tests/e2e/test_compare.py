"""Several runs in the same charts, in headless Chromium."""

import pytest

from server.db.tables import RunState
from webpage import OpenPage, Site, soon

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
