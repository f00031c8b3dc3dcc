"""What runs where, and that it says why."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparsify_core.kernels import dispatch

CUDA = torch.device("cuda")
KERNELS = Path(dispatch.__file__).parent


@pytest.mark.parametrize(
    ("device", "coder_dtype", "computes_bf16", "has_triton", "why"),
    [
        ("cpu", "auto", True, True, "the device is cpu, not cuda"),
        ("cuda", "float32", True, True, "coder_dtype is float32"),
        ("cuda", "auto", False, True, "Old card does not compute in bfloat16"),
        ("cuda", "bfloat16", True, False, "Triton is not installed"),
        ("cuda", "auto", True, True, ""),
        ("cuda", "bfloat16", True, True, ""),
    ],
)
def test_coders_train_by_kernels_where_they_can(
    monkeypatch: pytest.MonkeyPatch, device: str, coder_dtype: str, computes_bf16: bool, has_triton: bool, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old card")
    monkeypatch.setattr(dispatch, "find_spec", lambda name: name if has_triton else None)
    choice = dispatch.choose_coder(torch.device(device), coder_dtype)
    assert choice.is_kernel == (not why)
    if why:
        assert (choice.runs, choice.why) == ("reference", why)
    if coder_dtype != "float32":
        token_loss = dispatch.choose_token_loss(torch.device(device), torch.bfloat16)
        assert (token_loss.is_kernel, token_loss.why) == (choice.is_kernel, choice.why)
    assert not dispatch.choose_token_loss(torch.device(device), torch.float64).is_kernel


@pytest.mark.parametrize(
    ("capability", "latents", "width", "tokens", "why"),
    [
        ((9, 0), 18_432, 576, 65_536, ""),
        ((10, 0), 18_432, 576, 65_536, ""),
        ((9, 0), 18_433, 576, 65_536, "18,433 latents are no multiple of 8"),
        ((9, 0), 18_432, 70, 65_536, "70 inputs are no multiple of 8"),
        ((9, 0), 18_432, 576, 0, "there are no tokens"),
        ((8, 0), 18_432, 576, 65_536, "compute capability 8.0 is none of (9, 10)"),
        ((12, 0), 18_432, 576, 65_536, "compute capability 12.0 is none of (9, 10)"),
    ],
)
def test_the_encoder_is_fused_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], latents: int, width: int, tokens: int, why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    choice = dispatch.choose_encoder(CUDA, tokens=tokens, latents=latents, width=width)
    assert choice.is_kernel == (not why)
    assert choice.runs == ("library product, maxima" if why else "encode_gemm")
    assert choice.why == why or not why


@pytest.mark.parametrize(
    ("activation", "tokens", "latents", "k", "runs"),
    [
        ("topk", 8, 1 << 20, 1024, "topk"),
        ("topk", 8, 1 << 20, 1025, "library topk"),
        ("topk", 8, (1 << 20) + 1, 4, "library topk"),
        ("groupmax", 8, 1 << 24, 4096, "groupmax"),
        ("batchtopk", (1 << 26) - 1, 64, 1, "batchtopk"),
        ("batchtopk", 1 << 26, 64, 1, "library topk"),
        ("batchtopk", 1 << 20, 64, 64, "batchtopk"),
    ],
)
def test_selections_are_kernels_up_to_what_they_hold(
    activation: str, tokens: int, latents: int, k: int, runs: str
) -> None:
    choice = dispatch.choose_selection(activation, tokens=tokens, latents=latents, k=k)
    assert (choice.runs, choice.is_kernel) == (runs, "library" not in runs)
    assert choice.why


@pytest.mark.parametrize(
    ("activation", "k", "is_nested", "why"),
    [
        ("topk", 128, True, "among the 4k largest"),
        ("topk", 1028, False, "k = 1,028 is more than 1,024"),
        ("groupmax", 128, False, "the latents of groupmax need not be among the largest"),
    ],
)
def test_one_pass_reconstructs_from_the_largest_and_more(activation: str, k: int, is_nested: bool, why: str) -> None:
    choice = dispatch.choose_nested(activation, tokens=8, latents=18_432, k=k)
    assert choice.is_kernel == is_nested
    assert why in choice.why


@pytest.mark.parametrize(
    ("capability", "width", "is_kernel"), [((9, 0), 576, True), ((9, 0), 70, False), ((8, 0), 576, False)]
)
def test_the_gradient_of_dead_latents_is_masked_where_it_is_made(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], width: int, is_kernel: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    choice = dispatch.choose_dead_gradient(CUDA, tokens=8, width=width)
    assert (choice.is_kernel, choice.runs) == (is_kernel, "masked_gemm" if is_kernel else "library product, mask")


def test_dead_latents_beyond_a_program_are_decoded_sparsely() -> None:
    assert dispatch.choose_dead(dispatch.MAX_DEAD).is_kernel
    assert not dispatch.choose_dead(dispatch.MAX_DEAD + 1).is_kernel


def test_it_answers_without_triton() -> None:
    program = "import sys; sys.modules['triton'] = None; from sparsify_core.kernels import dispatch"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_kernel_has_a_test_file_of_its_name() -> None:
    names = {file.stem for file in KERNELS.glob("*.py")} - {"__init__"}
    assert {name for name in names if not Path(__file__).with_name(f"test_{name}.py").exists()} == set()


def test_gradients_of_a_gibibyte_are_not_made() -> None:
    wide = dispatch.choose_update(latents=131_072, d_in=4096, d_out=4096)
    assert wide == (True, "sparse_update", "gradients would take 4.00 GiB")
    assert not dispatch.choose_update(latents=24_576, d_in=768, d_out=768).is_kernel
