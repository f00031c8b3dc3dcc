"""Many runs from one form, a run from a checkpoint, and forms that are kept: as people do it, in headless Chromium."""

import pytest
from sqlmodel import select

from server.db.tables import Preset, Run
from webpage import OpenPage, Site

pytestmark = [pytest.mark.e2e, pytest.mark.integration]
PATIENCE_MS = 60_000


@pytest.mark.parametrize("script", [True, False])
def test_a_sweep_is_counted_queued_and_cancelled(site: Site, open_page: OpenPage, script: bool) -> None:
    page = open_page("/runs/new?preset=demo", script=script)
    page.set_default_timeout(PATIENCE_MS)
    page.locator("[name=name]").fill("browser")
    page.locator("#sweep-field-1").select_option("sae.k")
    page.locator("#sweep-values-1").fill("16 32")
    page.locator("#sweep-field-2").select_option("lr")
    page.locator("#sweep-values-2").fill("1e-3, 2e-3")
    if not script:
        page.get_by_role("button", name="Count the runs").click()
    page.locator("#sweep-outcome", has_text="This makes 4 runs").wait_for()
    page.get_by_role("button", name="Queue run").click()
    page.wait_for_url("**/sweeps/*")
    assert page.locator(".sweep-runs tbody tr").count() == 4
    page.get_by_role("button", name="Cancel all").click()
    page.get_by_role("button", name="Cancel runs").click()
    page.locator(".counts", has_text="4 cancelled").wait_for()
    sweep_id = page.url.rpartition("/")[2]
    with site.database.read() as session:
        made = session.exec(select(Run).where(Run.sweep_id == sweep_id).order_by(Run.rank)).all()
    assert (made[0].name, made[0].state) == ("browser k=16 lr=0.001", "cancelled")


def test_a_checkpoint_is_forked(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"/checkpoints/{site.ids['checkpoint']}")
    page.set_default_timeout(PATIENCE_MS)
    page.get_by_role("link", name="Fork").click()
    page.locator("#changes", has_text="step 200 was the last of its run").wait_for()
    page.locator("[name='config.batch_size']").fill("16")
    page.locator("#changes", has_text="weights alone: batch_size differs").wait_for()
    page.locator("#changes", has_text="batch_size 32 → 16").wait_for()


@pytest.mark.parametrize("script", [True, False])
def test_enter_does_what_its_field_is_about(site: Site, open_page: OpenPage, script: bool) -> None:
    page = open_page("/runs/new?preset=demo", script=script)
    page.set_default_timeout(PATIENCE_MS)
    page.locator("#preset-name").fill("by enter")
    if script:
        page.locator("#preset-name").press("Enter")
        page.get_by_role("link", name="by enter").wait_for()
        page.locator("#preset-name").fill("not this one")
    page.locator("[name='config.sae.k']").press("Enter")
    if not script:
        page.locator("#errors", has_text="Enter may mean the run or its preset").wait_for()
        page.get_by_role("button", name="Queue run").click()
    page.wait_for_url("**/runs/0*")
    with site.database.write() as session:
        kept = session.exec(select(Preset)).all()
        assert [preset.name for preset in kept] == ["by enter"] * script
        for preset in kept:
            session.delete(preset)


def test_a_form_is_kept_as_a_preset_and_deleted(site: Site, open_page: OpenPage) -> None:
    page = open_page("/runs/new?preset=pythia")
    page.set_default_timeout(PATIENCE_MS)
    page.locator("[name='config.sae.k']").fill("48")
    page.locator("#preset-name").fill("my pythia")
    page.get_by_role("button", name="Save as a preset").click()
    page.get_by_role("link", name="my pythia").wait_for()
    assert page.locator("[name='config.sae.k']").input_value() == "48"
    page.get_by_role("button", name="Delete this preset").click()
    page.get_by_role("button", name="Delete preset", exact=True).click()
    page.wait_for_url("**/runs/new")
    assert page.get_by_role("link", name="my pythia").count() == 0
    with site.database.read() as session:
        assert session.exec(select(Preset)).all() == []
