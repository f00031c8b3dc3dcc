"""The decoder kernel against float64, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from sparsify_core.kernels import decode, reference

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("tokens", "k", "latents", "width"), [(1, 1, 1, 1), (3, 5, 40, 6), (2, 8, 9, 64), (2, 19, 33, 96), (2, 32, 50, 100)]
)
@pytest.mark.parametrize(
    ("acts_dtype", "table_dtype", "target_dtype", "index_dtype"),
    [(BF16, BF16, BF16, torch.int32), (FP32, FP32, FP32, torch.int64), (BF16, FP32, FP32, torch.int32)],
)
def test_decode_and_residual(
    device: torch.device,
    tokens: int,
    k: int,
    latents: int,
    width: int,
    acts_dtype: torch.dtype,
    table_dtype: torch.dtype,
    target_dtype: torch.dtype,
    index_dtype: torch.dtype,
) -> None:
    """Widths that are and are not a sum of two powers of two, k that is no multiple of the unrolling."""
    torch.manual_seed(0)
    acts = torch.rand(tokens, k).to(acts_dtype)
    indices = torch.randint(latents, (tokens, k))  # repeated indices add up
    table, bias = torch.randn(latents, width).to(table_dtype), torch.randn(width)
    target = torch.randn(tokens, width).to(target_dtype)
    inputs = [t.to(device) for t in (acts, indices.to(index_dtype), table, bias)]
    residual, square = reference.decode_residual(acts.double(), indices, table.double(), bias.double(), target.double())
    out = decode.decode(*inputs, dtype=FP32)
    torch.testing.assert_close(out.cpu().double(), target.double() - residual, rtol=1e-5, atol=1e-5)
    got_residual, got_square = decode.decode_residual(*inputs, target.to(device), dtype=FP32)
    torch.testing.assert_close(got_residual.cpu().double(), residual, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got_square.cpu().double(), square, rtol=1e-5, atol=1e-5)


def test_squares_are_those_before_rounding(device: torch.device) -> None:
    torch.manual_seed(0)
    acts, indices = torch.rand(4, 3, device=device), torch.randint(5, (4, 3), device=device)
    table, target = torch.randn(5, 12, device=device), torch.randn(4, 12, device=device)
    exact = decode.decode_residual(acts, indices, table, table[0], target, dtype=FP32)
    rounded = decode.decode_residual(acts, indices, table, table[0], target, dtype=BF16)
    # Triton's interpreter cuts off what a device rounds: up to one unit in the last place of bf16.
    torch.testing.assert_close(rounded[0].float(), exact[0], rtol=2**-7, atol=0)
    assert rounded[0].dtype == BF16
    assert torch.equal(rounded[1], exact[1])


def test_lists_of_different_lengths(device: torch.device) -> None:
    """As under BatchTopK: one token without active latents, one with many."""
    torch.manual_seed(0)
    offsets = torch.tensor([0, 3, 3, 20, 21], dtype=torch.int32)
    acts, indices = torch.rand(21), torch.randint(10, (21,))
    table, bias, target = torch.randn(10, 24), torch.randn(24), torch.randn(4, 24)
    residual, square = reference.decode_residual(
        acts.double(), indices, table.double(), bias.double(), target.double(), offsets.long()
    )
    got = decode.decode_residual(
        *(t.to(device) for t in (acts, indices, table, bias, target)), dtype=FP32, offsets=offsets.to(device)
    )
    torch.testing.assert_close(got[0].cpu().double(), residual, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1].cpu().double(), square, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[0][1].cpu(), target[1] - bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("width", "num_warps"), [(1100, 1), (2048, 2), (4097, 4), (16_384, 8)])
@pytest.mark.parametrize("is_list", [False, True])
def test_wider_rows_get_more_warps(
    device: torch.device, launches: Launches, width: int, num_warps: int, is_list: bool
) -> None:
    torch.manual_seed(0)
    acts, indices = torch.rand(2, 3), torch.randint(5, (2, 3))
    table, bias, target = torch.randn(5, width), torch.randn(width), torch.randn(2, width)
    residual, _ = reference.decode_residual(acts.double(), indices, table.double(), bias, target)
    offsets = torch.tensor([0, 3, 6], dtype=torch.int32, device=device) if is_list else None
    entries = [t.flatten() if is_list else t for t in (acts, indices)]
    inputs = [t.to(device) for t in (*entries, table, bias)]
    got, _ = decode.decode_residual(*inputs, target.to(device), dtype=FP32, offsets=offsets)
    torch.testing.assert_close(got.cpu().double(), residual, rtol=1e-5, atol=1e-5)
    # A sum across warps: what is chosen for a width is chosen everywhere.
    launch = launches.only("_decode")
    assert (launch["num_warps"], launch["LIST"], launch["RESIDUAL"]) == (num_warps, is_list, True)


def test_wrong_input_is_refused(device: torch.device) -> None:
    acts, indices = torch.rand(4, 3, device=device), torch.zeros(4, 3, dtype=torch.int64, device=device)
    table, bias, target = torch.randn(5, 8, device=device), torch.zeros(8, device=device), torch.zeros(4, 8)
    with pytest.raises(ValueError, match="one shape"):
        decode.decode(acts, indices[:, :2], table, bias, dtype=FP32)
    with pytest.raises(ValueError, match="float16"):
        decode.decode(acts.half(), indices, table, bias, dtype=FP32)
    with pytest.raises(ValueError, match=r"b_dec \(8,\)"):
        decode.decode(acts, indices, table, bias[:7], dtype=FP32)
    with pytest.raises(ValueError, match=r"target \(4, 8\)"):
        decode.decode_residual(acts, indices, table, bias, target.T, dtype=FP32)
