"""What the interpreter cannot tell: that the kernels compile for a GPU, and keep their tiles in registers there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

PROGRAM = Path(__file__).parents[1] / "support" / "sm90.py"


def test_kernels_compile_for_sm90_without_spilling() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    needs = json.loads(done.stdout)
    assert {"_encode", "_group_max", "_select_topk", "_decode", "_count_digits", "_kl_divergence"} <= set(needs)
    assert {kernel: uses for kernel, uses in needs.items() if any(use["STACK"] for use in uses)} == {}
