"""Files, zip and the look inside a checkpoint."""

import hashlib
import io
import re
import zipfile

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import CODER, add_checkpoint, add_run
from server.db.tables import Checkpoint
from server.settings import Settings
from sparsify_core.rundir import CheckpointDir


@pytest.fixture
def folder(sqlite_app: FastAPI, sqlite_settings: Settings, checkpoint_id: str) -> CheckpointDir:
    with sqlite_app.state.db.read() as session:
        row = session.get_one(Checkpoint, checkpoint_id)
    return CheckpointDir(sqlite_settings.run_dir(row.run_id).root / row.path)


def test_a_checkpoint_lists_what_its_manifest_lists(
    sqlite_api: TestClient, checkpoint_id: str, folder: CheckpointDir
) -> None:
    found = sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}").json()
    assert found["coders"] == [CODER]
    assert found["evaluation"][CODER]["eval_fvu"] == 0.25
    assert {f["path"] for f in found["files"]} == {
        "config.json",
        "eval.json",
        f"{CODER}/cfg.json",
        f"{CODER}/sae.safetensors",
    }
    for entry in found["files"]:
        content = sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}/files/{entry['path']}")
        assert content.content == (folder.root / entry["path"]).read_bytes()
        assert hashlib.sha256(content.content).hexdigest() == entry["sha256"]
        assert content.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in content.headers["content-security-policy"]


def test_the_zip_holds_exactly_the_files(sqlite_api: TestClient, checkpoint_id: str, folder: CheckpointDir) -> None:
    answer = sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}/zip")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    zipped = {info.filename: archive.read(info) for info in archive.infolist()}
    on_disk = {f"step-00000020/{p.relative_to(folder.root)}": p for p in folder.root.rglob("*") if p.is_file()}
    assert zipped == {name: path.read_bytes() for name, path in on_disk.items()}


@pytest.mark.parametrize(
    "path",
    [
        "../../config.json",
        "..%2f..%2fconfig.json",
        "%2e%2e/%2e%2e/config.json",
        "%252e%252e/config.json",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "..\\config.json",
        "unlisted.txt",
        "link",
        CODER,
        "",
        "config.json%00",
    ],
)
def test_nothing_but_listed_files_can_be_read(
    sqlite_api: TestClient, checkpoint_id: str, folder: CheckpointDir, path: str
) -> None:
    (folder.root / "unlisted.txt").write_text("secret")
    (folder.root / "link").symlink_to("/etc/passwd")
    assert sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}/files/{path}").status_code == 404


def test_a_listed_file_that_became_a_link_is_not_followed(
    sqlite_api: TestClient, checkpoint_id: str, folder: CheckpointDir
) -> None:
    folder.evaluation.unlink()
    folder.evaluation.symlink_to("/etc/passwd")
    assert sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}/files/eval.json").status_code == 404
    assert sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}/zip").status_code == 404


def test_a_row_whose_path_leads_out_of_its_run_opens_nothing(
    sqlite_api: TestClient, sqlite_app: FastAPI, sqlite_settings: Settings, checkpoint_id: str
) -> None:
    with sqlite_app.state.db.write() as session:
        other = add_checkpoint(session, sqlite_settings, add_run(session))
        row = session.get_one(Checkpoint, checkpoint_id)
        row.path = f"../{other.run_id}/{other.path}"
    assert sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}").status_code == 404


def test_a_checkpoint_whose_files_are_gone_says_so(
    sqlite_api: TestClient, checkpoint_id: str, folder: CheckpointDir
) -> None:
    folder.manifest.unlink()
    for path in ("", "/zip", "/files/config.json"):
        answer = sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}{path}")
        assert answer.status_code == 404
        assert "are gone" in answer.json()["detail"]


def test_a_damaged_manifest_says_so(sqlite_api: TestClient, checkpoint_id: str, folder: CheckpointDir) -> None:
    for content in ("{", "[]", '{"version": 99}', '{"version": 1}', '{"version": 1, "files": []}'):
        folder.manifest.write_text(content)
        answer = sqlite_api.get(f"/api/v1/checkpoints/{checkpoint_id}")
        assert answer.status_code == 422, content
        assert answer.json()["code"] == "checkpoint_error"


def test_a_checkpoint_without_inspection_says_so(sqlite_api: TestClient, checkpoint_id: str) -> None:
    url = f"/api/v1/checkpoints/{checkpoint_id}/latents"
    answer = sqlite_api.get(f"{url}/0", params={"coder": CODER})
    assert answer.status_code == 422
    assert "no inspection data" in answer.json()["detail"]
    assert sqlite_api.get(f"{url}/0", params={"coder": "../x"}).status_code == 404
    assert sqlite_api.get(f"{url}/x", params={"coder": CODER}).status_code == 422
    assert sqlite_api.get(f"{url}/0").status_code == 422


def tiles(page: str) -> list[list[str]]:
    """Labels of the tiles, list by list; those of a latent are not among them."""
    lists = re.findall(r'<dl class="tiles[^"]*" aria-label="[^"]*">(.*?)</dl>', page, re.DOTALL)
    return [re.findall(r"<dt>(.*?)</dt>", found) for found in lists]


def test_numbers_stand_in_groups(browser: TestClient, sqlite_app: FastAPI, checkpoint_id: str) -> None:
    page = browser.get(f"/checkpoints/{checkpoint_id}").text
    assert tiles(page) == [["FVU (held out)", "L0 (held out)"]]
    assert "spliced in" not in page
    values = {"eval_fvu": 0.25, "eval_delta_ce": 0.0125, "eval_kl": 0.5, "eval_ce_recovered": 0.875, "unknown": 1}
    with sqlite_app.state.db.write() as session:
        session.get_one(Checkpoint, checkpoint_id).evaluation = {CODER: values}
    page = browser.get(f"/checkpoints/{checkpoint_id}").text
    assert tiles(page) == [["FVU (held out)"], ["Loss increase", "KL divergence (held out)", "Loss recovered"]]
    for text in ("Reconstruction</h2>", "spliced in</h2>", "0.0125 <small>nats/token</small>", "0.875"):
        assert text in page
    with sqlite_app.state.db.write() as session:
        session.get_one(Checkpoint, checkpoint_id).evaluation = {}
    assert "was not evaluated" in browser.get(f"/checkpoints/{checkpoint_id}").text
