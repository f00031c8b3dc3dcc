"""The largest of very many numbers against a stable sort, in Triton's interpreter where there is no CUDA device."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from sparsify_core.kernels import radix


@pytest.mark.parametrize("num_bits", [15, 31])
@pytest.mark.parametrize("number", [1, 700, 5000, 9000])
def test_largest_of_many(device: torch.device, launches: Launches, num_bits: int, number: int) -> None:
    """More than one tile, thresholds in every digit, entries that do not exist."""
    torch.manual_seed(number)
    bits = torch.randint(0, 2**num_bits, (9000,)) >> torch.randint(0, num_bits, (9000,))
    bits = torch.cat([torch.full((3,), -1), bits, torch.full((5,), -1)])
    bits = bits.to(torch.int16 if num_bits == 15 else torch.int32)
    places, threshold = radix.take_largest(bits.to(device), number, num_bits)
    order = bits.sort(descending=True, stable=True).indices[:number]
    assert torch.equal(places.cpu().long(), order.sort().values)
    assert int(threshold) == int(bits[order[-1]])
    assert launches.names == ["_count_digits", "_append_digit"] * (2 if num_bits == 15 else 4) + [
        "_count_flags",
        "_write_places",
    ]


def test_equal_numbers_are_taken_from_the_front(device: torch.device) -> None:
    bits = torch.full((5000,), 7, dtype=torch.int32, device=device)
    bits[4000] = 9
    places, threshold = radix.take_largest(bits, 3000, 31)
    assert places.tolist() == [*range(2999), 4000]
    assert int(threshold) == 7
