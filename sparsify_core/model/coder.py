"""SparseCoder: a k-sparse autoencoder or transcoder.

Legend: N tokens, M latents, K active latents, D input width, E output width (E = D for an autoencoder).
Parameter names, shapes, their order and the initialization are EleutherAI/sparsify's, so weights and optimizer state
can be exchanged. Different from it on purpose: latents cut off by the ReLU get no gradient (kernels/reference.py).
BatchTopK is ours: a batch shares its N * K active latents while training; behind it a threshold decides for each token.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsify_core.config import SparseCoderConfig
from sparsify_core.kernels import gather_latents, starts, weighted_rows
from sparsify_core.model.selection import select_from, select_groupmax, select_topk
from sparsify_core.sizes import CoderSize


class Selection(NamedTuple):
    """Which latents of which tokens: `indices` (N, K), or a list (P), token by token, with its `tokens_P`; int64, or
    int32 where the fast path made them. That one finds the activations `acts` on the way, of the shape of `indices`.
    """

    indices: Tensor
    tokens_P: Tensor | None = None
    acts: Tensor | None = None


class Latents(NamedTuple):
    """The active latents: `acts` >= 0, in the dtype that the encoder computed in, and the rest as in Selection."""

    acts: Tensor
    indices: Tensor
    tokens_P: Tensor | None = None


class ForwardOutput(NamedTuple):
    """Reconstruction (N, E), the latents behind it, and the FVU of this batch (a scalar)."""

    out_NE: Tensor
    latents: Latents
    fvu: Tensor


class SparseCoder(nn.Module):
    """A sparse coder in float32.

    Args:
        d_in: width of the input.
        config: shape and sparsity; `num_latents` 0 is resolved here.
        d_out: width of the target; None means d_in.
        seed: of the initialization. The same seed and widths give the same weights on every machine. None draws from
            torch's global generator, as upstream's class does.

    `straight_through` lets gradients pass latents that the ReLU cut off, as upstream does. `trains_fast` lets training
    steps compute in bfloat16 with the Triton kernels, on CUDA (model.encoding). `rounded` then holds matrices in
    bfloat16 as the last optimizer step left them; who changes weights otherwise clears it.
    """

    threshold: Tensor
    """Scalar, only under batchtopk: what a pre-activation must reach behind training. 0, before it is calibrated, lets
    all positive ones pass."""

    def __init__(self, d_in: int, config: SparseCoderConfig, *, d_out: int | None = None, seed: int | None = 0) -> None:
        super().__init__()
        self.d_in = d_in
        self.d_out = d_in if d_out is None else d_out
        self.num_latents = config.resolve_num_latents(d_in)
        self.k = config.k
        self.is_transcoder = config.transcode
        self.activation = config.activation
        self.straight_through = False
        self.trains_fast = False
        self.rounded: dict[Tensor, Tensor] = {}
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
        if self.uses_batchtopk:
            self.register_buffer("threshold", torch.zeros(()))
        if self.normalizes_decoder:
            self.normalize_decoder()

    @property
    def size(self) -> CoderSize:
        """Its shape, at the k that it has now."""
        return CoderSize(self.d_in, self.d_out, self.num_latents, self.k, has_skip=self.W_skip is not None)

    @property
    def uses_batchtopk(self) -> bool:
        return self.activation == "batchtopk"

    def pre_activations(self, x_ND: Tensor) -> Tensor:
        """(N, M) encoder outputs before ReLU and selection, without a graph."""
        with torch.no_grad():
            return functional.linear(self.centred(x_ND), self.encoder.weight, self.encoder.bias)

    def encode_selected(self, x_ND: Tensor, pre_NM: Tensor, selection: Selection) -> Latents:
        """The activations of the given latents, differentiable in x and in the encoder."""
        acts = gather_latents(
            self.centred(x_ND),
            self.encoder.weight,
            self.encoder.bias,
            pre_NM,
            selection.indices,
            selection.tokens_P,
            straight_through=self.straight_through,
        )
        return Latents(acts, selection.indices, selection.tokens_P)

    def activate(self, x_ND: Tensor) -> Latents:
        """The active latents of each token in a trained coder."""
        pre_NM = self.pre_activations(x_ND)
        return self.encode_selected(x_ND, pre_NM, self.select(pre_NM))

    def select(self, pre_NM: Tensor) -> Selection:
        """The latents that stay active in a trained coder."""
        if self.uses_batchtopk:
            tokens_P, latents_P = select_from(pre_NM, self.threshold)
            return Selection(latents_P, tokens_P)
        if self.straight_through:  # the choice among latents below zero matters then: make it as upstream does
            pre_NM = pre_NM.relu()
        return Selection((select_groupmax if self.activation == "groupmax" else select_topk)(pre_NM, self.k))

    def decode_latents(self, latents: Latents, num_tokens: int) -> Tensor:
        """(N, E) = sum_k acts * W_dec[indices] + b_dec."""
        return self.weighted_rows(latents, num_tokens) + self.b_dec

    def weighted_rows(self, latents: Latents, num_tokens: int) -> Tensor:
        """(N, E) = sum_k acts * W_dec[indices]."""
        offsets_N = None if latents.tokens_P is None else starts(latents.tokens_P, num_tokens)
        return weighted_rows(latents.indices, latents.acts, self.W_dec, offsets_N)

    def reconstruct(self, x_ND: Tensor, latents: Latents) -> Tensor:
        """(N, E) what the coder says the target of `x_ND` is, given its active latents: decoded, plus the skip."""
        return self.complete(x_ND, self.weighted_rows(latents, len(x_ND)))

    def complete(self, x_ND: Tensor, decoded_NE: Tensor) -> Tensor:
        """(N, E) what was decoded, with the bias, and the skip where there is one."""
        out_NE = decoded_NE + self.b_dec
        return out_NE if self.W_skip is None else out_NE + self.skipped(x_ND)

    def skipped(self, x_ND: Tensor) -> Tensor:
        """(N, E) what the skip connection adds; only where there is one."""
        if self.W_skip is None:
            raise ValueError("this coder has no skip connection")
        return x_ND.to(self.W_skip.dtype) @ self.W_skip.T

    def forward(self, x_ND: Tensor, y_NE: Tensor | None = None) -> ForwardOutput:
        """Encode, decode and compare with `y_NE` (None: with the input)."""
        target_NE = x_ND if y_NE is None else y_NE
        latents = self.activate(x_ND)
        out_NE = self.reconstruct(x_ND, latents)
        variance = (target_NE - target_NE.mean(0)).square().sum()
        return ForwardOutput(out_NE, latents, (target_NE - out_NE).square().sum() / variance)

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

    def in_bfloat16(self, p: Tensor) -> Tensor:
        """`p` rounded, without a graph."""
        copy = self.rounded.get(p)
        return p.detach().bfloat16() if copy is None else copy

    def centred(self, x_ND: Tensor) -> Tensor:
        """(N, D) what the encoder reads."""
        return x_ND if self.is_transcoder else x_ND - self.b_dec
