"""The demo's model and text, made from the real packages."""

import json
import subprocess
from pathlib import Path

import pytest

from services import python
from sparsify_core.demo import MODEL_NAME, TEXT_NAME

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run(python("-m", "sparsify_core.demo", str(folder)), check=True, timeout=120)
    return folder


def test_the_converted_model_knows_the_capital_of_france(demo: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo / MODEL_NAME)
    model = AutoModelForCausalLM.from_pretrained(demo / MODEL_NAME, dtype=torch.float32)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    assert tokenizer.decode([int(logits.argmax())]) == " Paris"


def test_the_text_mixes_both_kinds_from_the_start(demo: Path) -> None:
    texts = [json.loads(line)["text"] for line in (demo / TEXT_NAME).open(encoding="utf-8")]
    assert len(texts) > 2000
    assert sum(len(text) for text in texts) > 6_000_000
    head = texts[:20]
    assert any(text.startswith("Genesis") for text in head)
    assert any("Args" in text or "torch" in text or "tensor" in text for text in head)


def test_a_second_preparation_changes_nothing(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()}
    done = subprocess.run(python("-m", "sparsify_core.demo", str(demo)), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*") if path.is_file()} == before


def test_a_missing_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        python("-m", "sparsify_core.demo", str(tmp_path / "file" / "demo")), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
