"""Keeping the k largest of each row, against a stable sort."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from launches import Launches
from sparsify_core.kernels.keep import keep_largest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("rows", "width", "columns", "k"), [(1, 1, 1, 1), (5, 64, 50, 7), (9, 128, 128, 128), (3, 192, 130, 20)]
)
def test_rows_are_the_head_of_a_stable_sort(
    dtype: torch.dtype, rows: int, width: int, columns: int, k: int, device: torch.device
) -> None:
    torch.manual_seed(0)
    pre = (torch.randn(rows, width, device=device) * 4).round().to(dtype) / 4  # many ties, many below 0
    pre[:, columns:] = 100  # padding
    out = keep_largest(pre, k, columns)
    acts = pre[:, :columns].relu()
    chosen = acts.sort(dim=1, descending=True, stable=True).indices[:, :k]
    expected = torch.zeros_like(pre)
    expected[:, :columns] = torch.zeros_like(acts).scatter(1, chosen, acts.gather(1, chosen))
    assert torch.equal(out, expected)
    assert keep_largest(pre, k, columns, out=pre) is pre
    assert torch.equal(pre, expected)


@pytest.mark.parametrize(
    ("width", "tile", "tiles", "num_warps"),
    [(1024, 1024, 1, 1), (1025, 1024, 2, 2), (4097, 1024, 5, 4), (8193, 2048, 5, 8)],
)
@pytest.mark.parametrize("share_positive", [1.0, 0.5, 0.01])
def test_rows_of_several_tiles(
    launches: Launches,
    device: torch.device,
    width: int,
    tile: int,
    tiles: int,
    num_warps: int,
    share_positive: float,
) -> None:
    torch.manual_seed(0)
    pre = (torch.rand(2, width, device=device) + share_positive - 1).bfloat16()  # many ties, in every tile
    kept = keep_largest(pre, 100, width)
    chosen = pre.relu().sort(dim=1, descending=True, stable=True).indices[:, :100]
    assert torch.equal(kept, torch.zeros_like(pre).scatter(1, chosen, pre.relu().gather(1, chosen)))
    launch = launches.only("_keep")
    assert (launch["TILE"], launch["TILES"], launch["num_warps"]) == (tile, tiles, num_warps)


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="need 1 <= k"):
        keep_largest(torch.zeros(2, 8, device=device), 5, 4)
