"""Selection on the bits of numbers against sorts, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")
import triton
import triton.language as tl

from sparsify_core.kernels.bits import as_bits, kth_largest, num_bits, place_largest, relu_bits

SIZE = 64


@triton.jit
def _select(values_ptr, relu_ptr, kth_ptr, taken_ptr, rank_ptr, k, BITS: tl.constexpr, SIZE: tl.constexpr):
    lanes = tl.arange(0, SIZE)
    bits = relu_bits(tl.load(values_ptr + lanes).to(tl.int32), BITS)
    taken, rank = place_largest((bits,), kth_largest((bits,), k, BITS), k)
    tl.store(relu_ptr + lanes, bits.to(relu_ptr.dtype.element_ty))
    tl.store(kth_ptr, kth_largest((bits,), k, BITS).to(kth_ptr.dtype.element_ty))
    tl.store(taken_ptr + lanes, taken[0].to(tl.int32))
    tl.store(rank_ptr + lanes, rank[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("k", [1, 13, SIZE])
def test_relu_kth_largest_and_ranks(device: torch.device, dtype: torch.dtype, k: int) -> None:
    """Ties, infinities, both zeros, the smallest and the largest numbers."""
    torch.manual_seed(k)
    values = (torch.randn(SIZE) * 2).round().to(dtype) / 2
    info = torch.finfo(dtype)
    special = [-0.0, 0.0, float("inf"), float("-inf"), info.max, info.min, info.tiny, info.smallest_normal / 4]
    values[: len(special)] = torch.tensor(special, dtype=dtype)
    relu, kth = torch.empty(SIZE, dtype=dtype, device=device), torch.empty(1, dtype=dtype, device=device)
    taken, rank = (torch.empty(SIZE, dtype=torch.int32, device=device) for _ in range(2))
    on_device = values.to(device)
    buffers = as_bits(on_device), as_bits(relu), as_bits(kth), taken, rank
    _select[(1,)](*buffers, k, BITS=num_bits(on_device), SIZE=SIZE)
    assert torch.equal(relu.cpu(), values.relu())
    assert not relu.signbit().any()
    order = values.relu().sort(descending=True, stable=True).indices[:k]
    assert float(kth) == float(values.relu()[order[-1]])
    chosen = order.sort().values
    assert torch.equal(taken.cpu().nonzero().flatten(), chosen)
    assert rank.cpu()[chosen].tolist() == list(range(k))


def test_nan_is_above_all_numbers(device: torch.device) -> None:
    values = torch.arange(SIZE, dtype=torch.float32, device=device)
    values[[5, 9]] = torch.tensor([float("nan"), -float("nan")], device=device)
    relu, kth = torch.empty_like(values), torch.empty(1, device=device)
    taken, rank = (torch.empty(SIZE, dtype=torch.int32, device=device) for _ in range(2))
    _select[(1,)](*map(as_bits, (values, relu, kth)), taken, rank, 3, BITS=31, SIZE=SIZE)
    assert taken.cpu().nonzero().flatten().tolist() == [5, 9, SIZE - 1]
    assert float(kth) == SIZE - 1


@pytest.mark.parametrize("wrong", [torch.zeros(4, dtype=torch.float16), torch.zeros(4, 4).T[1:]])
def test_other_memory_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="need contiguous bfloat16 or float32"):
        as_bits(wrong)
