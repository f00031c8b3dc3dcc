"""What the interpreter cannot tell: that the kernels compile for a GPU, and that what they work on fits into it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import dispatch

PROGRAM = Path(__file__).parents[1] / "support" / "compiled.py"
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""Shared memory of one program: CUDA C++ Programming Guide, compute capabilities."""
ONLY = {80: {"_encode", "_activated", "_multiply_masked"}, 90: set()}
"""Kernels that this GPU has not got."""
STACK_BYTES = {("_adam_rows_kernel", 80): 8, ("_encoder_step_kernel", 80): 8}
"""Division has a slow path with a word on the stack. Of a group's steps one word spills."""


def launched_kernels() -> set[str]:
    """The kernels that a line like `_name[grid](...)` launches."""
    sources = [file.read_text() for file in Path(dispatch.__file__).parent.glob("*.py")]
    return {name for source in sources for name in re.findall(r"^\s+(_\w+)\[.+\]\(", source, re.MULTILINE)}


@pytest.mark.parametrize("shape", [(65_536, 18_432, 576, 32), (8192, 131_072, 4096, 64)], ids=["W1", "W3"])
@pytest.mark.parametrize("capability", [80, 90], ids="sm_{}".format)
def test_kernels_compile_without_spilling(capability: int, shape: tuple[int, ...]) -> None:
    """Triton keeps what it compiled: only the first time takes a minute."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, PROGRAM, *map(str, (capability, *shape))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    needs = json.loads(done.stdout)
    assert set(needs) == launched_kernels() - ONLY[capability]
    for kernel, uses in needs.items():
        for use in uses:
            assert use["STACK"] <= STACK_BYTES.get((kernel, capability), 0), (kernel, use)
            assert use["REG"] * use["WARPS"] * 32 <= 65_536, (kernel, use)
            assert use["SHARED"] <= SHARED_BYTES[capability], (kernel, use)
