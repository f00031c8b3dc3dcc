"""SparseCoder for programs written against upstream: its constructor, loaders and names of results.

Legend: N tokens, M latents, K active latents, D input width, E output width. `...` stands for any leading dimensions.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sparsify_core.config import SparseCoderConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.formats.hub import download
from sparsify_core.formats.sparsify import fill, read_files, reading, save_coder
from sparsify_core.formats.tree import choose_coders
from sparsify_core.kernels import starts
from sparsify_core.model import coder, losses
from sparsify_core.model.encoding import Encoding
from sparsify_core.rundir import CoderDir


class EncoderOutput(NamedTuple):
    """`top_acts` and int64 `top_indices` (..., K), unsorted, and all `pre_acts` (..., M) behind the ReLU.

    Under batchtopk K is the largest number of active latents that a token has; the others are filled up with zeros.
    """

    top_acts: Tensor
    top_indices: Tensor
    pre_acts: Tensor


class ForwardOutput(NamedTuple):
    """Reconstruction (N, E), active latents (N, K), and the losses as scalars, 0 where they are off."""

    sae_out: Tensor
    latent_acts: Tensor
    latent_indices: Tensor
    fvu: Tensor
    auxk_loss: Tensor
    multi_topk_fvu: Tensor


class SparseCoder(coder.SparseCoder):
    """A sparse autoencoder or transcoder, freshly initialized from torch's global generator.

    Args:
        decoder: False leaves out W_dec: it can encode only.
        d_out: width of the target; None means d_in, which is all that upstream knows.
    """

    def __init__(
        self,
        d_in: int,
        cfg: SparseCoderConfig,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        *,
        decoder: bool = True,
        d_out: int | None = None,
    ) -> None:
        super().__init__(d_in, cfg, d_out=d_out, seed=None)
        self.cfg = cfg
        if not decoder:
            self.register_parameter("W_dec", None)
        self.to(device=device, dtype=dtype)

    @property
    def device(self) -> torch.device:
        return self.encoder.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.weight.dtype

    @staticmethod
    def load_from_disk(path: Path | str, device: str | torch.device = "cpu", *, decoder: bool = True) -> "SparseCoder":
        """Read a coder in the dtype of its file. Raises CheckpointError when it is missing, damaged or inconsistent."""
        files = read_files(Path(path))
        with reading(Path(path)):
            loaded = SparseCoder(files.d_in, files.config, dtype=files.dtype, decoder=decoder, d_out=files.d_out)
        fill(loaded, files, Path(path), strict=decoder)
        return loaded.to(device)

    @staticmethod
    def load_many(
        name: str,
        local: bool = False,
        layers: list[str] | None = None,
        device: str | torch.device = "cpu",
        *,
        decoder: bool = True,
        pattern: str | None = None,
    ) -> dict[str, "SparseCoder"]:
        """Coders by name, in natural order, from a folder (`local`) or a repository of the Hub.

        Args:
            layers: only these hookpoints, with all their seeds; only they are downloaded.
            pattern: only names or hookpoints that this shell pattern matches.

        Raises CheckpointError when nothing is there, or a layer is missing.
        """
        wanted = [f"{layer}/*" for layer in layers] if layers is not None else None
        if wanted is None and pattern is not None:
            wanted = [f"{pattern}/*"]
        root = Path(name) if local else download(name, wanted)
        chosen = choose_coders(root, layers=layers, pattern=pattern)
        return {found: SparseCoder.load_from_disk(path, device, decoder=decoder) for found, path in chosen.items()}

    @staticmethod
    def load_from_hub(
        name: str, hookpoint: str | None = None, device: str | torch.device = "cpu", *, decoder: bool = True
    ) -> "SparseCoder":
        """One coder of a repository; without `hookpoint` the one in its root. Raises CheckpointError without any."""
        root = download(name, [f"{hookpoint}/*"] if hookpoint is not None else None)
        if hookpoint is None and not CoderDir(root).config.is_file():
            raise CheckpointError(f"{name} holds several sparse coders or none: give a hookpoint")
        return SparseCoder.load_from_disk(root / hookpoint if hookpoint is not None else root, device, decoder=decoder)

    def save_to_disk(self, path: Path | str) -> None:
        """Write cfg.json and sae.safetensors into the folder `path`, which is made."""
        Path(path).mkdir(parents=True, exist_ok=True)
        save_coder(CoderDir(Path(path)), self, self.cfg)

    def encode(self, x: Tensor) -> EncoderOutput:
        """The active latents of x (..., D)."""
        x_ND = x.reshape(-1, self.d_in).to(self.dtype)
        pre_NM = self.pre_activations(x_ND)
        acts_NK, indices_NK = _in_columns(self.encode_selected(x_ND, pre_NM, self.select(pre_NM)), len(x_ND))
        shape = x.shape[:-1]
        return EncoderOutput(
            acts_NK.view(*shape, acts_NK.shape[1]),
            indices_NK.view(*shape, acts_NK.shape[1]),
            pre_NM.relu().view(*shape, self.num_latents),
        )

    def decode(self, top_acts: Tensor, top_indices: Tensor) -> Tensor:
        """(..., E) from activations and indices (..., K)."""
        if self.W_dec is None:
            raise CheckpointError("this sparse coder was loaded with decoder=False: it can only encode")
        k = top_indices.shape[-1]
        latents = coder.Latents(top_acts.reshape(-1, k).to(self.dtype), top_indices.reshape(-1, k))
        out_NE = self.decode_latents(latents, len(latents.acts))
        return out_NE.view(*top_indices.shape[:-1], self.d_out)

    def forward(  # type: ignore[override]  # upstream's names
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        dead_mask: Tensor | None = None,
        total_variance: Tensor | None = None,
    ) -> ForwardOutput:
        """Encode x (N, D), decode, and compare with y (N, E), None: with x.

        Args:
            dead_mask: bool (M); the dead latents, for the AuxK loss.
            total_variance: what the squared errors are divided by; None: sum_n |y_n - mean|^2.
        """
        x_ND = x.to(self.dtype)
        y_NE = x_ND if y is None else y
        top_acts, top_indices, _ = self.encode(x_ND)
        out_NE = self.decode(top_acts, top_indices)
        if self.W_skip is not None:
            out_NE = out_NE + self.skipped(x_ND)
        residual_NE = y_NE - out_NE
        variance = (y_NE - y_NE.mean(0)).square().sum() if total_variance is None else total_variance
        auxk = multi = out_NE.new_zeros(())
        dead_C = x_ND.new_zeros(0) if dead_mask is None else dead_mask.nonzero().flatten()
        if len(dead_C) or self.cfg.multi_topk:
            encoding = Encoding(x_ND, self.pre_activations(x_ND))
            if len(dead_C):
                auxk = losses.auxk_sum(self, encoding, residual_NE.detach(), dead_C) / variance
            if self.cfg.multi_topk:
                multi = losses.multi_topk_sum(self, encoding, y_NE) / variance
        return ForwardOutput(out_NE, top_acts, top_indices, residual_NE.square().sum() / variance, auxk, multi)


Sae = SparseCoder


def _in_columns(latents: coder.Latents, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Activations and int64 indices (N, K), filled up with zeros where tokens have different numbers of latents."""
    acts, indices, tokens_P = latents
    if tokens_P is None:
        return acts, indices
    first_N = starts(tokens_P, num_tokens)
    column_P = torch.arange(len(tokens_P), device=acts.device) - first_N[tokens_P]
    k = int(column_P.max()) + 1 if len(column_P) else 1
    places = (tokens_P, column_P)
    return (
        acts.new_zeros(num_tokens, k).index_put(places, acts),
        indices.new_zeros(num_tokens, k).index_put(places, indices),
    )
