"""Compiles the kernels for a GPU on any machine, with the parameters that their launch functions choose.

`python compiled.py CAPABILITY TOKENS LATENTS WIDTH K` prints, as JSON, the registers per thread, the shared memory and
the stack (bytes; what spills is there) of each kernel at the shapes of a step. Must run outside Triton's interpreter.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from sparsify_core.kernels import activated_gemm, encode_gemm
from sparsify_core.kernels.batchtopk import select_batchtopk
from sparsify_core.kernels.decode import decode, decode_residual
from sparsify_core.kernels.decode_nested import decode_nested
from sparsify_core.kernels.dispatch import MAX_DEAD
from sparsify_core.kernels.groupmax import select_groupmax
from sparsify_core.kernels.keep import keep_largest
from sparsify_core.kernels.masked_gemm import multiply_masked
from sparsify_core.kernels.maxima import group_maxima
from sparsify_core.kernels.moments import centred_moments, moments
from sparsify_core.kernels.muon_average import muon_average
from sparsify_core.kernels.sparse_grads import sparse_gradients
from sparsify_core.kernels.sparse_update import Adam, Parameter, Signum, sparse_update
from sparsify_core.kernels.token_loss import cross_entropy, kl_divergence
from sparsify_core.kernels.topk import select_topk
from sparsify_core.kernels.update import adam_corrections, adam_update, signum_update

_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class _Device:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def usage(cubin: bytes) -> dict[str, int]:
    """What the machine code needs, in cuobjdump's words."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run([_CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED):(\d+)", shown)}


def launch(capability: int, tokens: int, latents: int, width: int, k: int) -> None:
    """What steps launch, on tensors without memory."""
    x = torch.empty(tokens, width, dtype=torch.bfloat16)
    W_dec, weight, bias = x.new_empty(latents, width), torch.empty(latents, width), torch.empty(latents)
    if capability >= 90:  # tiles are moved by descriptors
        for one in encode_gemm.LAUNCHES:
            encode_gemm.LAUNCHES = (one,)
            encode_gemm.encode_gemm(x, W_dec, bias)
        multiply_masked(x, x.new_empty(4096, width), x.new_empty(tokens, 4096))
        features = width // 3 * 8
        first, other, offset = x.new_empty(features, width), x.new_empty(features, width), x.new_empty(features)
        for one in activated_gemm.GATED_LAUNCHES:
            activated_gemm.GATED_LAUNCHES = (one,)
            activated_gemm.activated_gemm(x, first, "silu", other_FD=other)
        for one in activated_gemm.PLAIN_LAUNCHES:
            activated_gemm.PLAIN_LAUNCHES = (one,)
            for function in activated_gemm.FUNCTIONS:
                activated_gemm.activated_gemm(x, first, function, bias_F=offset)
    moments(x, torch.empty(width))
    centred_moments(x, torch.empty(width))
    pre = x.new_empty(tokens, latents)
    maxima = group_maxima(pre)
    select_batchtopk(pre, maxima, k)
    select_groupmax(pre, k)
    select_groupmax(pre, k, maxima)
    acts, indices = select_topk(pre, maxima, k)
    nested, wider = select_topk(pre, maxima, 4 * k, first=k)
    for size in (1024, 4096, 6144, MAX_DEAD):
        keep_largest(x.new_empty(tokens, size), k, size)
    b_dec, scale = torch.empty(width), torch.empty(())
    rows = decode_nested(nested, wider, W_dec, b_dec, x, first=k, weight=0.125).rows_N2E
    sparse_gradients(x, rows, nested, wider, W_dec, first=k)
    decode(acts, indices, W_dec, b_dec, dtype=torch.float32)
    decode_residual(acts, indices, W_dec, b_dec, x, dtype=torch.bfloat16)
    for straight_through in (False, True):
        sparse_gradients(x, x, acts, indices, W_dec, straight_through=straight_through, with_acts=straight_through)
    logits = x.new_empty(1365, 49_152)
    for needs_gradient in (False, True):
        cross_entropy(logits, torch.empty(len(logits), dtype=torch.int64), needs_gradient=needs_gradient)
        kl_divergence(logits, logits, needs_gradient=needs_gradient)
    for normalize in (False, True):
        options: dict[str, Any] = {"scale": scale, "lr": 0.1, "normalize": normalize, "copy": W_dec}
        signum_update(weight, weight, weight, share=0.5, momentum=0.95, **options)
        adam_update(weight, weight, weight, weight, corrections=adam_corrections(scale), **options)
    for unit in (None, weight):
        muon_average(weight, weight, scale=scale, momentum=0.95, unit_RW=unit)
    for rule, states in ((Signum(0.1, 0.5, 0.95), 1), (Adam(0.1, adam_corrections(scale)), 2)):
        matrix, vector = Parameter(weight, (weight,) * states, W_dec), Parameter(bias, (bias,) * states)
        batch = (x, x, acts, indices, matrix, matrix, vector, rule)
        sparse_update(*batch, scale=scale, normalize=True, with_centre=True)


def main() -> None:
    capability, *shape = map(int, sys.argv[1:])
    needs: dict[str, list[dict[str, int]]] = {}
    run = JITFunction.run

    def compile_only(kernel: JITFunction, *args: Any, **kwargs: Any) -> None:
        compiled = run(kernel, *args, **{**kwargs, "warmup": True})
        # What the launch asks for: the machine code does not say how much shared memory it gets on the way.
        uses = usage(compiled.asm["cubin"]) | {"SHARED": compiled.metadata.shared, "WARPS": compiled.metadata.num_warps}
        needs.setdefault(kernel.__name__, []).append(uses)

    driver.set_active(_Device(capability))
    JITFunction.run = compile_only
    with torch.device("meta"):
        launch(capability, *shape)
    print(json.dumps(needs))


if __name__ == "__main__":
    main()
