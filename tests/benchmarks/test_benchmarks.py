"""Every benchmark runs from end to end on tiny sizes and prints a row for what it measured; the numbers are not looked
at."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from browser import chromium_path
from oracle import install
from sparsify_core.demo import MODEL_NAME, TEXT_NAME
from tiny import WORDS, build_model

ROOT = Path(__file__).parents[2]
SHORT = ["--rounds", "1", "--warm_up", "1", "--windows", "1"]
HELPERS = {
    "__init__",
    "bits",
    "dispatch",
    "entry_launches",
    "entry_sums",
    "fast",
    "further_parts",
    "radix",
    "reference",
    "rows",
    "sparse_code",
    "squared_error",
    "tiles",
    "tuning",
}
"""Modules of sparsify_core.kernels that are no operation of their own."""


def run(*command: str, peer: bool = False) -> list[list[str]]:
    """The rows of the table that the benchmark prints at its end, without its head."""
    paths = [str(ROOT), *([str(install())] if peer else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("| --- |") :].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture(scope="module")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and text in the place of the demo's."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    build_model(folder / MODEL_NAME)
    lines = [" ".join(WORDS[(start * step) % len(WORDS)] for step in range(200)) for start in range(1, 41)]
    (folder / TEXT_NAME).write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return folder


def test_every_operation_has_a_benchmark_of_its_name() -> None:
    kernels, benchmarks = (
        {path.stem for path in folder.glob("*.py")}
        for folder in (ROOT / "sparsify_core/kernels", ROOT / "benchmarks/kernels")
    )
    assert benchmarks - {"__init__", "__main__", "case"} == kernels - HELPERS


def test_kernels_are_timed_against_pytorch() -> None:
    operations = ["encode_gemm", "by_latent", "keep"]
    rows = run("-m", "benchmarks.kernels", *operations, "--shapes", "tiny", "--repeats", "1")
    assert [(row[0], row[2]) for row in rows] == [(name, "tiny") for name in operations]
    assert all(row[6].endswith("×") for row in rows)


def test_training_steps_are_compared_with_sparsify() -> None:
    rows = run("-m", "benchmarks.train_step", "tiny", "--modes", "batchtopk", "ce", *SHORT, peer=True)
    assert [row[:2] for row in rows] == [["tiny", "batchtopk, against our topk"], ["tiny", "ce"]]
    assert all(row[4].endswith("×") for row in rows)


def test_a_coder_alone_is_compared_with_sparsify() -> None:
    sizes = ["--width", "16", "--latents", "64", "--tokens", "32", "--modes", "k4:adam"]
    rows = run("-m", "benchmarks.train_coder", *sizes, *SHORT, peer=True)
    assert [row[:2] for row in rows] == [["coder", "k4:adam"]]
    assert rows[0][4].endswith("×")


def test_the_demo_on_a_cpu_is_compared_with_sparsify(demo_dir: Path) -> None:
    sizes = ["--demo_dir", str(demo_dir), "--layer", "0", "--ctx_len", "16"]
    rows = run("-m", "benchmarks.train_cpu", *sizes, *SHORT, peer=True)
    assert [row[1] for row in rows] == ["cpu", "cpu, its model cut"]


@pytest.mark.integration
def test_two_processes_are_compared_with_one() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    cases = ["tiny:ddp", "tiny:distribute_modules"]
    rows = run(*launcher, "-m", "benchmarks.train_ddp", *cases, "--device", "cpu", *SHORT)
    assert [row[1] for row in rows] == ["ddp", "distribute_modules"]


def test_a_pass_over_a_queue_is_timed_alone_and_with_its_database() -> None:
    rows = run("-m", "benchmarks.queue_pass", "--queued", "20", "--workers", "2", "--rounds", "1")
    assert [(row[2], row[3]) for row in rows] == [
        (taken, what) for taken in ("half", "all") for what in ("decision", "first pass", "later pass")
    ]


@pytest.mark.integration
def test_the_way_from_submit_to_torchrun_is_timed(demo_dir: Path) -> None:
    rows = run("-m", "benchmarks.queue_start", "--demo_dir", str(demo_dir), "--rounds", "1")
    assert [row[0] for row in rows] == ["submit → torchrun"]


@pytest.mark.integration
def test_a_run_under_sparseboard_is_compared_with_the_bare_one(demo_dir: Path) -> None:
    sizes = ["--demo_dir", str(demo_dir), "--layer", "0", "--ctx_len", "16", "--steps", "8", "--rounds", "1"]
    rows = run("-m", "benchmarks.train_served", *sizes)
    assert [row[1] for row in rows] == ["served"]


def test_a_point_is_timed_on_its_way_to_the_pixel() -> None:
    if chromium_path() is None:
        pytest.skip("no Chromium found in PATH")
    (row,) = run("-m", "benchmarks.web_live", "--viewers", "3", "--points", "2", "--interval_s", "0.1")
    assert row[:2] == ["3", "2"]
    (row,) = run("-m", "benchmarks.web_paint", "--points", "9000", "--repeats", "2")
    assert row[0] == "9,000"


def test_the_list_of_runs_is_timed() -> None:
    rows = run("-m", "benchmarks.web_list", "--runs", "60", "--repeats", "2", "--seconds", "0.5")
    assert [row[0] for row in rows][:2] == ["newest", "newest, page"]
    assert float(rows[-1][3]) > 0
