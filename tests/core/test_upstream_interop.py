"""A checkpoint of ours in the hands of EleutherAI's own package."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracle import Oracle
from runs import TrainFunction
from sparsify_core.formats.sparsify import load_coder

pytestmark = pytest.mark.integration

UPSTREAM = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from sparsify import SparseCoder

checkpoint, name, data = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
given = load_file(data / "in.safetensors")
coder = SparseCoder.load_from_disk(checkpoint / name)
encoded = coder.encode(given["x"])
decoded = coder.decode(given["acts"], given["indices"])
out = coder(given["x"], given["x"]).sae_out
names = list(SparseCoder.load_many(str(checkpoint), local=True))
assert names == ["layers.0", "layers.1"], names
saved = {"acts": encoded.top_acts, "indices": encoded.top_indices, "decoded": decoded, "out": out}
save_file({key: value.detach().contiguous() for key, value in saved.items()}, data / "out.safetensors")
"""


@pytest.mark.parametrize("transcode", [False, True])
def test_upstream_loads_encodes_and_decodes_equally(
    train: TrainFunction, tmp_path: Path, oracle: Oracle, transcode: bool
) -> None:
    checkpoint = train(layers=[0, 1], transcode=transcode, optimizer="signum").run_dir.checkpoint(10).root
    coder = load_coder(checkpoint / "layers.0")
    x = torch.randn(50, 32) + coder.b_dec.detach()
    with torch.no_grad():
        latents = coder.encode(x)
        decoded = coder.decode(latents.acts_NK, latents.indices_NK)
        out = coder(x).out_NE
    save_file({"x": x, "acts": latents.acts_NK, "indices": latents.indices_NK}, tmp_path / "in.safetensors")
    oracle.run(UPSTREAM, checkpoint, "layers.0", tmp_path)
    theirs = load_file(tmp_path / "out.safetensors")
    order, their_order = latents.indices_NK.argsort(dim=1), theirs["indices"].argsort(dim=1)
    torch.testing.assert_close(
        latents.acts_NK.gather(1, order), theirs["acts"].gather(1, their_order), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(latents.indices_NK.gather(1, order), theirs["indices"].gather(1, their_order))
    torch.testing.assert_close(decoded, theirs["decoded"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out, theirs["out"], atol=1e-5, rtol=1e-5)
