"""What the launch functions launch compiles for an H100, without one: the interpreter takes forms that no GPU does.

Run as a script, in a process that does not interpret, this file compiles every launch and prints one line for each.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

WIDTHS = [576, 4096]
TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    bool: "i1",
    int: "i32",
    float: "fp32",
}


def _compile(kernel: Any, names: dict[str, Any], num_warps: int) -> int:
    """Bytes of registers that a launch with these arguments spills to memory."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    fixed = {p.name for p in kernel.params if p.is_constexpr}
    constants = {name: value for name, value in names.items() if name in fixed}
    signature = {
        name: "constexpr" if name in fixed else TYPES[getattr(value, "dtype", type(value))]
        for name, value in names.items()
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind[0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps})
    command = [knobs.nvidia.ptxas.path, "--verbose", "--gpu-name=sm_90a", "-", "--output-file", os.devnull]
    log = subprocess.run(command, input=compiled.asm["ptx"], capture_output=True, text=True, check=True).stderr
    return int(re.search(r"(\d+) bytes spill stores", log).group(1))


def _record_launches() -> None:
    """Let every launch compile instead of run, and print a line."""
    from triton.runtime.jit import JITFunction

    def run(self: Any, *args: Any, grid: Any, warmup: bool, num_warps: int = 4, **kwargs: Any) -> None:
        names = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        names = {name: names[name] for name in self.arg_names}
        print(json.dumps({"kernel": self.__name__, "spilled": _compile(self, names, num_warps)}), flush=True)

    JITFunction.run = run


def _launch_all(width: int) -> None:
    """Call the launch functions with few tokens and latents of the given width, on the CPU."""
    from sparsify_core.kernels.sparse_grads import sparse_gradients
    from sparsify_core.kernels.sparse_update import Adam, Parameter, Signum, sparse_update
    from sparsify_core.kernels.update import adam_corrections, adam_update, signum_update

    num_tokens, k, num_latents = 256, 2, 16
    p, scale = torch.empty(num_latents, width), torch.ones(())
    indices = torch.zeros(num_tokens, k, dtype=torch.int32)
    for dtype in (torch.bfloat16, torch.float32):
        x, acts = torch.empty(num_tokens, width, dtype=dtype), torch.empty(num_tokens, k, dtype=dtype)
        W_dec = torch.empty(num_latents, width, dtype=dtype)
        gradients = sparse_gradients(x, x, acts, indices, W_dec, with_acts=True)
        sparse_gradients(x, x, acts, indices, W_dec, straight_through=True, into=gradients)
        for rule, state in ((Signum(0.1, 0.5, 0.95), 1), (Adam(0.1, torch.empty(2)), 2)):
            W_dec, W_enc, b_enc = (
                Parameter(p, (p,) * state, low)
                for p, low in ((p, p.bfloat16()), (p, p.bfloat16()), (p[:, 0].contiguous(), None))
            )
            batch = (x, x, acts, indices, W_dec, W_enc, b_enc, rule)
            sparse_update(*batch, scale=scale, normalize=True, with_centre=True)
    for normalize in (False, True):
        options = {"scale": scale, "lr": 0.1, "normalize": normalize, "copy": p.bfloat16()}
        signum_update(p, p, p, share=0.5, momentum=0.95, **options)
        adam_update(p, p, p, p, corrections=adam_corrections(torch.ones(())), **options)


@pytest.mark.parametrize("width", WIDTHS)
def test_kernels_compile_and_keep_their_rows_in_registers(width: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, str(width)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    launches = [json.loads(line) for line in done.stdout.splitlines()]
    assert launches
    assert [launch for launch in launches if launch["spilled"]] == []


if __name__ == "__main__":
    _record_launches()
    _launch_all(int(sys.argv[1]))
