"""SparseCoder: a k-sparse autoencoder or transcoder.

Legend: N tokens, M latents, K active latents, D input width, E output width (E = D for an autoencoder).
Parameter names, shapes, their order and the initialization are EleutherAI/sparsify's, so weights and optimizer state
can be exchanged. Different from it on purpose: latents cut off by the ReLU get no gradient (kernels/reference.py).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsify_core.config import SparseCoderConfig
from sparsify_core.kernels import gather_latents, weighted_rows
from sparsify_core.model.selection import select_groupmax, select_topk


class EncoderOutput(NamedTuple):
    """`acts_NK` >= 0 in the dtype of the weights; `indices_NK` int64."""

    acts_NK: Tensor
    indices_NK: Tensor


class ForwardOutput(NamedTuple):
    """Reconstruction (N, E), the latents behind it, and the FVU of this batch (a scalar)."""

    out_NE: Tensor
    acts_NK: Tensor
    indices_NK: Tensor
    fvu: Tensor


class SparseCoder(nn.Module):
    """A sparse coder in float32.

    Args:
        d_in: width of the input.
        config: shape and sparsity; `num_latents` 0 is resolved here.
        d_out: width of the target; None means d_in.
        seed: of the initialization. The same seed and widths give the same weights on every machine. None draws from
            torch's global generator, as upstream's class does.
    """

    def __init__(self, d_in: int, config: SparseCoderConfig, *, d_out: int | None = None, seed: int | None = 0) -> None:
        super().__init__()
        self.d_in = d_in
        self.d_out = d_in if d_out is None else d_out
        self.num_latents = config.resolve_num_latents(d_in)
        self.k = config.k
        self.is_transcoder = config.transcode
        self.uses_groupmax = config.activation == "groupmax"
        self.normalizes_decoder = config.normalize_decoder and not config.transcode

        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            encoder = nn.Linear(d_in, self.num_latents)
        nn.init.zeros_(encoder.bias)
        start = torch.zeros(self.num_latents, self.d_out) if config.transcode else encoder.weight.detach().clone()
        self.W_dec = nn.Parameter(start)
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))
        self.W_skip = nn.Parameter(torch.zeros(self.d_out, d_in)) if config.skip_connection else None
        self.encoder = encoder
        if self.normalizes_decoder:
            self.normalize_decoder()

    def pre_activations(self, x_ND: Tensor) -> Tensor:
        """(N, M) encoder outputs before ReLU and selection, without a graph."""
        with torch.no_grad():
            return functional.linear(self._centred(x_ND), self.encoder.weight, self.encoder.bias)

    def encode_selected(self, x_ND: Tensor, pre_NM: Tensor, indices_NK: Tensor) -> Tensor:
        """(N, K) activations of the given latents, differentiable in x and in the encoder."""
        return gather_latents(self._centred(x_ND), self.encoder.weight, self.encoder.bias, pre_NM, indices_NK)

    def encode(self, x_ND: Tensor) -> EncoderOutput:
        """The active latents of each token."""
        pre_NM = self.pre_activations(x_ND)
        indices_NK = self.select(pre_NM)
        return EncoderOutput(self.encode_selected(x_ND, pre_NM, indices_NK), indices_NK)

    def select(self, pre_NM: Tensor) -> Tensor:
        """(N, K) indices of the latents that stay active."""
        return select_groupmax(pre_NM, self.k) if self.uses_groupmax else select_topk(pre_NM, self.k)

    def decode(self, acts_NK: Tensor, indices_NK: Tensor) -> Tensor:
        """(N, E) = sum_k acts * W_dec[indices] + b_dec."""
        return weighted_rows(indices_NK, acts_NK, self.W_dec) + self.b_dec

    def reconstruct(self, x_ND: Tensor, latents: EncoderOutput) -> Tensor:
        """(N, E) what the coder says the target of `x_ND` is, given its active latents: decoded, plus the skip."""
        out_NE = self.decode(latents.acts_NK, latents.indices_NK)
        return out_NE if self.W_skip is None else out_NE + x_ND @ self.W_skip.T

    def forward(self, x_ND: Tensor, y_NE: Tensor | None = None) -> ForwardOutput:
        """Encode, decode and compare with `y_NE` (None: with the input)."""
        target_NE = x_ND if y_NE is None else y_NE
        latents = self.encode(x_ND)
        out_NE = self.reconstruct(x_ND, latents)
        variance = (target_NE - target_NE.mean(0)).square().sum()
        return ForwardOutput(out_NE, *latents, fvu=(target_NE - out_NE).square().sum() / variance)

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Scale every decoder row to unit norm."""
        norm_M1 = self.W_dec.norm(dim=1, keepdim=True)
        self.W_dec.div_(norm_M1 + torch.finfo(self.W_dec.dtype).eps)

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Take out of the decoder's gradient what points along its unit rows: a step there is undone by normalizing."""
        grad_ME = self.W_dec.grad
        if grad_ME is not None:
            grad_ME.addcmul_((grad_ME * self.W_dec).sum(1, keepdim=True), self.W_dec, value=-1)

    def _centred(self, x_ND: Tensor) -> Tensor:
        return x_ND if self.is_transcoder else x_ND - self.b_dec
