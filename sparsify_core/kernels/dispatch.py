"""The one place that decides what runs an operation of a training step, by device, shape and number format, and why.

Needs torch alone: it answers on machines without Triton and CUDA too. `kernels.fast` and the trainer do what is said
here, `python -m sparsify_core kernels` shows it. How a kernel is launched is the matter of `kernels.tuning`.
"""

from importlib.util import find_spec
from typing import NamedTuple

import torch

from sparsify_core.sizes import UPDATE_AT_ONCE_FROM_BYTES

GROUP = 32
"""Neighbouring latents of which a maximum is taken, so that a selection reads few of them. 16 and 32 selected fastest
of 16, 32, 64 and 128 on an H100; 32 has half the maxima of 16."""

MAX_K = 1024
"""What one program of topk holds: k * GROUP pre-activations."""

MAX_GROUPS = 32768
"""What one program of topk holds: the group maxima of a token."""

MAX_CANDIDATES = 2**31 - 1
"""What batchtopk counts in 32 bits: the pre-activations in the groups that it chooses from."""

MAX_DEAD = 16384
"""What one program of keep holds: the dead latents of a token."""

_FUSED_ON = (9, 10)
"""Major versions of devices that move tensors by themselves and have the shared memory for the tiles of encode_gemm,
activated_gemm and masked_gemm."""
FUSED_MULTIPLE = 8
"""A row must be a multiple of 16 bytes for that, 8 bfloat16 numbers."""


class Choice(NamedTuple):
    """Whether an operation runs as a kernel of ours; what runs, in words; and why."""

    is_kernel: bool
    runs: str
    why: str


def choose_coder(device: torch.device, coder_dtype: str) -> Choice:
    """What a coder trains by: all the kernels below, in bfloat16, or `kernels.reference`, in float32.

    Args:
        coder_dtype: as in the configuration.
    """
    if coder_dtype == "float32":
        return Choice(False, "reference", "coder_dtype is float32")
    return _choose_by_device(device, "kernels")


def choose_token_loss(device: torch.device, dtype: torch.dtype) -> Choice:
    """What computes the losses ce and kl of logits.

    Args:
        dtype: of the language model.
    """
    if dtype == torch.float64:
        return Choice(False, "reference", "the language model is in float64")
    return _choose_by_device(device, "token_loss")


def _choose_by_device(device: torch.device, kernels: str) -> Choice:
    if device.type != "cuda":
        return Choice(False, "reference", f"the device is {device.type}, not cuda")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return Choice(False, "reference", f"{torch.cuda.get_device_name(device)} does not compute in bfloat16")
    if find_spec("triton") is None:
        return Choice(False, "reference", "Triton is not installed")
    return Choice(True, kernels, "CUDA that computes in bfloat16")


def choose_encoder(device: torch.device, *, tokens: int, latents: int, width: int) -> Choice:
    """What computes the pre-activations and the maxima of their groups."""
    sizes = {"inputs": width, "latents": latents}
    return _choose_product(device, "encode_gemm", "library product, maxima", tokens, sizes)


def choose_dead_gradient(device: torch.device, *, tokens: int, width: int) -> Choice:
    """What computes the gradient of the activations of dead latents, whose number is padded to a multiple that fits."""
    return _choose_product(device, "masked_gemm", "library product, mask", tokens, {"outputs": width})


def _choose_product(device: torch.device, kernel: str, library: str, tokens: int, sizes: dict[str, int]) -> Choice:
    """`sizes`: the lengths of the rows that are moved."""
    if unfit := _unfit(sizes):
        return Choice(False, library, unfit)
    if not tokens:
        return Choice(False, library, "there are no tokens")
    if device.type != "cuda":
        return Choice(False, library, f"the device is {device.type}, not cuda")
    return _choose_by_capability(device, kernel, library)


def choose_mlp(device: torch.device, dtype: torch.dtype, *, width: int, features: int) -> Choice:
    """What computes the first half of a language model's MLP, where its layers are compiled.

    Args:
        width: of the activations that the MLP reads.
        features: activations between its two halves.
    """
    compiled = "compiled layer"
    if unfit := _unfit({"inputs": width, "features": features}):
        return Choice(False, compiled, unfit)
    if dtype not in (torch.bfloat16, torch.float16):
        return Choice(False, compiled, f"the language model is in {str(dtype).removeprefix('torch.')}")
    by_device = _choose_by_device(device, "activated_gemm")
    if not by_device.is_kernel:
        return Choice(False, compiled, by_device.why)
    return _choose_by_capability(device, "activated_gemm", compiled)


def _unfit(sizes: dict[str, int]) -> str | None:
    """Why rows of these lengths cannot be moved by a device's own engine."""
    for name, size in sizes.items():
        if size % FUSED_MULTIPLE:
            return f"{size:,} {name} are no multiple of {FUSED_MULTIPLE}"
    return None


def _choose_by_capability(device: torch.device, kernel: str, otherwise: str) -> Choice:
    major, minor = torch.cuda.get_device_capability(device)
    if major not in _FUSED_ON:
        return Choice(False, otherwise, f"compute capability {major}.{minor} is none of {_FUSED_ON}")
    return Choice(True, kernel, f"compute capability {major}.{minor}, multiples of {FUSED_MULTIPLE}")


def choose_selection(activation: str, *, tokens: int, latents: int, k: int) -> Choice:
    """What finds the active latents. Where no kernel does, it is PyTorch's topk."""
    groups = -(-latents // GROUP)
    if activation == "batchtopk":
        candidates = min(tokens * k, tokens * groups) * GROUP
        if candidates > MAX_CANDIDATES:
            return Choice(False, "library topk", f"{candidates:,} candidates are more than {MAX_CANDIDATES:,}")
        return Choice(True, "batchtopk", f"at most {MAX_CANDIDATES:,} candidates")
    if activation == "groupmax":
        return Choice(True, "groupmax", "every shape")
    if k > MAX_K:
        return Choice(False, "library topk", f"k = {k:,} is more than {MAX_K:,}")
    if groups > MAX_GROUPS:
        return Choice(False, "library topk", f"{latents:,} latents are more than {MAX_GROUPS * GROUP:,}")
    return Choice(True, "topk", f"k <= {MAX_K:,} and at most {MAX_GROUPS * GROUP:,} latents")


def choose_nested(activation: str, *, tokens: int, latents: int, k: int) -> Choice:
    """What reconstructs from the k largest latents beside the coder's own selection of fewer of them (Multi-TopK)."""
    if activation != "topk":
        return Choice(False, "as a second selection", f"the latents of {activation} need not be among the largest")
    selection = choose_selection(activation, tokens=tokens, latents=latents, k=k)
    if not selection.is_kernel:
        return Choice(False, "as a second selection", selection.why)
    return Choice(True, "decode_nested", "the k largest are among the 4k largest")


def choose_dead(number: int) -> Choice:
    """What the AuxK loss decodes `number` dead latents by."""
    if number > MAX_DEAD:
        return Choice(False, "as other latents, among the dead", f"{number:,} dead latents are more than {MAX_DEAD:,}")
    return Choice(True, "dead_error, keep", f"at most {MAX_DEAD:,} dead latents")


def choose_update(*, latents: int, d_in: int, d_out: int) -> Choice:
    """What steps the weights of a coder whose whole gradient comes from one selection of one batch."""
    gib = 4 * latents * (d_in + d_out) / 2**30
    if 4 * latents * (d_in + d_out) < UPDATE_AT_ONCE_FROM_BYTES:
        return Choice(False, "sparse_grads, update", f"gradients take {gib:.2f} GiB, less than 1")
    return Choice(True, "sparse_update", f"gradients would take {gib:.2f} GiB")
