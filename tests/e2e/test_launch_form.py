"""The launch form in a browser: fields come and go, hookpoints are picked, tabs convert, a refused run is mended."""

import json

import pytest

from server.db.tables import Run
from sparsify_core.demo import MODEL_NAME
from webpage import OpenPage, Site

pytestmark = [pytest.mark.e2e, pytest.mark.integration]

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MINUTE_MS = 60_000


def test_fields_without_effect_are_hidden_while_they_keep_their_default(open_page: OpenPage) -> None:
    page = open_page("/runs/new?preset=blank&view=full")
    bits = page.locator("[name='config.adam_bits']")
    assert not bits.is_visible()
    page.locator("[name='config.optimizer']").select_option("adam")
    bits.wait_for()
    bits.select_option("auto")
    page.locator("[name='config.optimizer']").select_option("signum")
    assert bits.is_visible(), "what differs from its default is never hidden"
    page.get_by_role("button", name="Basic options").click()
    assert not bits.is_visible()
    assert "view" not in page.url
    plain = open_page("/runs/new?preset=blank&view=full", script=False)
    assert plain.locator("[name='config.adam_bits']").is_visible()


def test_hookpoints_are_picked_from_the_modules_of_the_model(site: Site, open_page: OpenPage) -> None:
    (site.settings.demo_dir / MODEL_NAME / "config.json").write_text(json.dumps(LLAMA))
    page = open_page("/runs/new?preset=demo")
    picker = page.locator("#picker")  # the plan reads the model, unasked
    picker.locator("summary", has_text="Modules of this model").wait_for(timeout=2 * MINUTE_MS)
    said = picker.get_by_role("status")
    assert "no module matches hookpoint 'layers.5'" in said.inner_text()
    hookpoints = page.locator("[name='config.hookpoints']")
    hookpoints.fill("layers.1")
    said.get_by_text("1 module of 3 layers: layers.1").wait_for(timeout=MINUTE_MS)
    if picker.locator("details[open]").count() == 0:
        picker.locator("summary").click()
    picker.get_by_role("button", name="Add layers.*.mlp", exact=True).click()
    assert hookpoints.input_value() == "layers.1\nlayers.*.mlp"
    said.get_by_text("4 modules of 3 layers: layers.0.mlp, layers.1, layers.1.mlp, layers.2.mlp").wait_for(
        timeout=MINUTE_MS
    )


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_a_run_is_mended_in_another_tab_and_queued(site: Site, open_page: OpenPage, script: bool) -> None:
    page = open_page("/runs/new?preset=demo", script=script)
    page.locator("[name=name]").fill(f"by tabs {script}")
    page.locator("[name='config.hookpoints']").fill("layers.1")
    page.locator("[name='config.sae.k']").fill("0")
    page.get_by_role("button", name="Queue run").click()
    page.locator("#errors", has_text="k: Must be greater than or equal to 1").wait_for()
    page.locator("[name='config.sae.k']").fill("16")
    page.get_by_role("button", name="YAML").click()
    text = page.locator("#text")
    assert "k: 16" in text.input_value()
    text.fill(text.input_value().replace("k: 16", "k: x"))
    page.get_by_role("button", name="Command").click()
    page.locator("#text-problems", has_text="sae.k: input should be a valid integer").wait_for()
    text.fill(text.input_value().replace("k: x", "k: 24"))
    page.get_by_role("button", name="Command").click()
    page.locator("h2", has_text="Command").wait_for()
    assert "--k 24" in text.input_value()
    page.get_by_role("button", name="Queue run").click()
    page.wait_for_url("**/runs/0*")
    with site.database.read() as session:
        run = session.get_one(Run, page.url.rsplit("/", 1)[1])
    assert (run.name, run.config["sae"]["k"]) == (f"by tabs {script}", 24)
