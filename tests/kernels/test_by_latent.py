"""Entries sorted by latent against a plain loop."""

import pytest
import torch

from sparsify_core.kernels.by_latent import SEGMENT, sort_by_latent


def _case(name: str) -> tuple[torch.Tensor, int]:
    torch.manual_seed(0)
    if name == "hot":  # latent 3 fires on every token, many never do
        indices = torch.randint(40, (3 * SEGMENT + 7, 4))
        indices[:, 2] = 3
        return indices, 50
    if name == "full segments":
        return torch.tensor([1] * SEGMENT + [2] * 2 * SEGMENT + [4] * (SEGMENT + 1)), 6
    if name == "all one":
        return torch.zeros(SEGMENT * 5, 1, dtype=torch.int64), 1
    if name == "none":
        return torch.empty(0, dtype=torch.int64), 3
    if name == "wide keys":
        return torch.randint(70_000, (9, 5), dtype=torch.int32), 70_000
    if name == "widest short keys":
        return torch.tensor([[32_766, 0, 32_766]]), 32_767
    return torch.tensor([[5, 0]]), 6


@pytest.mark.parametrize(
    "name", ["hot", "full segments", "all one", "none", "wide keys", "widest short keys", "one token"]
)
def test_segments_cover_every_entry_once_in_order(name: str) -> None:
    indices, num_latents = _case(name)
    entries = sort_by_latent(indices, num_latents)
    flat = indices.flatten().tolist()
    by_latent: list[list[int]] = [[] for _ in range(num_latents)]
    for position, latent in enumerate(flat):
        by_latent[latent].append(position)
    expected = [
        (latent, own[begin : begin + SEGMENT])
        for latent, own in enumerate(by_latent)
        for begin in range(0, max(len(own), 1), SEGMENT)
    ]

    order, starts = entries.order_P.tolist(), entries.starts_M.tolist()
    first, latent_of = entries.first_segment_M.tolist(), entries.latent_S.tolist()
    seen, further = [], []
    for segment, latent in enumerate(latent_of):
        if latent == num_latents:
            continue
        begin = starts[latent] + (segment - first[latent]) * SEGMENT
        seen.append((latent, order[begin : min(begin + SEGMENT, starts[latent + 1])]))
        if segment > first[latent]:
            further.append((segment - latent - 1, latent))
    assert seen == expected
    assert latent_of[len(expected) :] == [num_latents] * (len(latent_of) - len(expected))
    assert further == list(enumerate(latent for latent in entries.latent_T.tolist() if latent < num_latents))


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="32-bit"):
        sort_by_latent(torch.empty(2**30, 2, dtype=torch.int32, device="meta"), 10)
