"""The command that shows what runs each operation."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsify_core.cli import main
from sparsify_core.config import SparseCoderConfig
from sparsify_core.kernel_table import Workload, kernel_rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without CUDA")
def test_a_machine_without_cuda_says_that_the_reference_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"CPU, torch {torch.__version__}")
    assert "32,768 tokens of width 768, 24,576 latents, topk, k = 32" in shown
    assert shown.splitlines()[-1].split(maxsplit=2) == ["all", "reference", "the device is cpu, not cuda"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tune", "--device", "cpu"], "nothing to tune, the device is cpu"),
        (["--d_in", "0"], "d_in: input should be greater than or equal to 1, got 0"),
        (["--d_in", "4", "--k", "200"], "k = 200 is more than num_latents = 128"),
        (["--activation", "groupmax", "--k", "7"], "groupmax needs num_latents divisible by k, got 24576 and 7"),
        (["--batch_size", "4"], "--batch_size"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert sentence in message
    assert len(message.splitlines()) == 1


def test_help_does_not_import_torch() -> None:
    program = (
        "import sys; from sparsify_core.cli import main\ntry: main(['kernels', '--help'])\nexcept SystemExit: pass\n"
    )
    program += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("values", "operation", "runs", "why"),
    [
        ({"num_latents": 18_433}, "encode", "library product, maxima", "18,433 latents are no multiple of 8"),
        ({"num_latents": 18_432}, "select", "topk", "k <= 1,024"),
        ({"num_latents": 18_432, "k": 2000}, "select", "library topk", "k = 2,000 is more than 1,024"),
        ({"num_latents": 18_432, "activation": "groupmax"}, "select", "groupmax", "every shape"),
        ({"num_latents": 18_432, "activation": "batchtopk"}, "select", "batchtopk", "candidates"),
    ],
)
def test_rows_say_what_runs_and_why(values: dict[str, object], operation: str, runs: str, why: str) -> None:
    pytest.importorskip("triton", reason="Triton exists for Linux only")
    rows = {row.operation: row for row in kernel_rows(torch.device("cpu"), Workload(), SparseCoderConfig(**values))}
    assert rows[operation].runs == runs
    assert why in rows[operation].why
    assert ("num_warps=" in rows[operation].launch) == (runs == "topk")


@pytest.mark.gpu
def test_tuned_launches_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ["kernels", "--d_in", "64", "--num_latents", "1024", "--tokens", "256"]
    assert main(words) == 0
    assert "default, not yet tuned" in capsys.readouterr().out
    assert main([*words, "--tune"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(torch.cuda.get_device_name())
    assert "TOKENS=" in shown
    assert "not yet tuned" not in shown
