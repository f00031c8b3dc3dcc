"""The masked product against float64; in Triton's interpreter, which does not multiply bf16, with fp16."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from sparsify_core.kernels import masked_gemm


@pytest.fixture(autouse=True)
def small_tiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter reduces one element after the other: seconds for a tile that suits a GPU."""
    if device.type == "cpu":
        small = {"ROWS": 16, "COLUMNS": 64, "WIDTH": 16, "ROW_TILES": 2}
        monkeypatch.setattr(masked_gemm, "LAUNCH", masked_gemm.LAUNCH | small)


@pytest.mark.parametrize(("rows", "columns", "width"), [(1, 8, 8), (16, 64, 16), (17, 72, 24), (300, 200, 40)])
def test_products_and_sums(device: torch.device, rows: int, columns: int, width: int) -> None:
    """Sizes below one tile, of one, just beyond, and more bands of tiles than one."""
    torch.manual_seed(0)
    left, right, mask = (torch.randn(size).half() for size in ((rows, width), (columns, width), (rows, columns)))
    mask[:, 0] = -1
    out, sums = masked_gemm.multiply_masked(*(t.to(device) for t in (left, right, mask)))
    expected = (left.double() @ right.double().T) * (mask > 0)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(sums.cpu().double(), expected.sum(0), rtol=1e-5, atol=1e-4)
    assert torch.equal(out.cpu() == 0, (mask <= 0) | (expected.half() == 0))


def test_wrong_input_is_refused(device: torch.device) -> None:
    left, right, mask = (torch.zeros(size, device=device).half() for size in ((2, 8), (16, 8), (2, 16)))
    for changed, match in [
        ((left.float(), right, mask), "float32"),
        ((left, right[:, :4], mask), "contiguous"),
        ((left, right, mask[:, :8]), "contiguous"),
        ((left, right[:12], mask[:, :12].contiguous()), "multiples of 8"),
    ]:
        with pytest.raises(ValueError, match=match):
            masked_gemm.multiply_masked(*changed)
