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


@pytest.mark.parametrize(("width", "padded", "num_warps"), [(1024, 1024, 2), (1025, 4096, 8), (4097, 16_384, 16)])
def test_few_sizes_serve_all_widths(
    launches: Launches, device: torch.device, width: int, padded: int, num_warps: int
) -> None:
    pre = torch.randn(2, width, device=device)
    kept = keep_largest(pre, 100, width)
    assert torch.equal(kept, torch.where(pre >= pre.topk(100).values[:, -1:], pre, 0))
    launch = launches.only("_keep")
    assert (launch["PADDED"], launch["num_warps"]) == (padded, num_warps)


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="need 1 <= k"):
        keep_largest(torch.zeros(2, 8, device=device), 5, 4)
