"""Compiles the kernels for an H100 on any machine, with the parameters that their launch functions choose.

Run as a program it prints, as JSON, the registers per thread, the shared memory and the stack (bytes; what spills is
there) of each kernel at the shapes of a real step. Must run outside Triton's interpreter.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from sparsify_core.kernels.batchtopk import select_batchtopk
from sparsify_core.kernels.decode import decode_residual
from sparsify_core.kernels.encode_gemm import encode_gemm
from sparsify_core.kernels.group_max import group_max
from sparsify_core.kernels.groupmax import select_groupmax
from sparsify_core.kernels.moments import centred_moments
from sparsify_core.kernels.topk import select_topk

_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class _H100:
    """As much of Triton's driver as compiling asks for."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def usage(cubin: bytes) -> dict[str, int]:
    """What the machine code needs, in cuobjdump's words."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run([_CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED):(\d+)", shown)}


def launch(tokens: int, latents: int, width: int, k: int) -> None:
    """What a step launches, on tensors without memory."""
    bf16 = {"dtype": torch.bfloat16, "device": "meta"}
    x, weight = torch.empty(tokens, width, **bf16), torch.empty(latents, width, **bf16)
    centred_moments(x, torch.empty(width, device="meta"))
    pre, maxima = encode_gemm(x, weight, torch.empty(latents, device="meta"))
    group_max(pre)
    select_batchtopk(pre, maxima, k)
    select_groupmax(pre, k)
    acts, indices = select_topk(pre, maxima, k)
    decode_residual(acts, indices, weight, torch.empty(width, device="meta"), x, dtype=torch.bfloat16)


def main() -> None:
    needs: dict[str, list[dict[str, int]]] = {}
    run = JITFunction.run

    def compile_only(kernel: JITFunction, *args: Any, **kwargs: Any) -> None:
        compiled = run(kernel, *args, **{**kwargs, "warmup": True})
        needs.setdefault(kernel.__name__, []).append(usage(compiled.asm["cubin"]))

    driver.set_active(_H100())
    JITFunction.run = compile_only
    launch(65_536, 18_432, 576, 32)
    print(json.dumps(needs))


if __name__ == "__main__":
    main()
