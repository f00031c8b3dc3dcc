"""A training step through a sparse coder: encode once, then select and decode as often as the losses need.

This is where the fast path of CUDA parts from the reference: the coder's `trains_fast` says which (kernels.dispatch).
Legend: N tokens, M latents, D input width, E output width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sparsify_core.kernels import dispatch
from sparsify_core.model.coder import Latents, Selection, SparseCoder
from sparsify_core.model.selection import select_batchtopk, select_topk, select_topk_among
from sparsify_core.timing import Span

if TYPE_CHECKING:
    from sparsify_core.kernels.squared_error import Weights


class Encoding(NamedTuple):
    """What is computed of the tokens once.

    `x_ND` is the coder's input with its graph, if it has one; `pre_NM` has none. On the fast path `low_ND` is what the
    encoder read, in bfloat16 and without a graph, and `max_NJ` holds the maxima of groups of latents; an autoencoder's
    `centred_sums` are those of (x - b_dec), float64 (D), and of its squares, a scalar.
    """

    x_ND: Tensor
    pre_NM: Tensor
    low_ND: Tensor | None = None
    max_NJ: Tensor | None = None
    centred_sums: Sequence[Tensor] | None = None


@Span("encode")
@torch.no_grad()
def encode(coder: SparseCoder, x_ND: Tensor) -> Encoding:
    """The pre-activations of a step's tokens."""
    if not coder.trains_fast:
        return Encoding(x_ND, coder.pre_activations(x_ND))
    from sparsify_core.kernels import fast  # Triton is there only with CUDA
    from sparsify_core.kernels.moments import centred_moments

    centred_sums = None
    if coder.is_transcoder:
        low_ND = x_ND.detach().bfloat16().contiguous()
    else:
        low_ND, *centred_sums = centred_moments(x_ND.detach().contiguous(), coder.b_dec.detach())
    pre_NM, max_NJ = fast.encode(low_ND, coder.in_bfloat16(coder.encoder.weight), coder.encoder.bias.detach())
    return Encoding(x_ND, pre_NM, low_ND, max_NJ, centred_sums)


@torch.no_grad()
def target_sums(coder: SparseCoder, encoding: Encoding, y_NE: Tensor) -> Sequence[Tensor] | None:
    """The sums of (y - b_dec), float64 (E), and of its squares, a scalar, where one pass gives both; None elsewhere."""
    if encoding.low_ND is None or encoding.centred_sums is not None:
        return encoding.centred_sums
    from sparsify_core.kernels.moments import moments  # see encode

    return moments(y_NE.detach().contiguous(), coder.b_dec.detach())


@Span("select")
def select(coder: SparseCoder, encoding: Encoding) -> Selection:
    """The latents that stay active while training: as in a trained coder, but under batchtopk a batch shares them."""
    if encoding.max_NJ is not None:
        from sparsify_core.kernels import fast  # see encode

        return Selection(*fast.select(encoding.pre_NM, encoding.max_NJ, coder.activation, coder.k))
    if coder.uses_batchtopk:
        tokens_P, latents_P = select_batchtopk(encoding.pre_NM, coder.k)
        return Selection(latents_P, tokens_P)
    return coder.select(encoding.pre_NM)


@Span("select")
def select_largest(encoding: Encoding, k: int) -> Selection:
    """The k largest latents of each token, whatever the coder's own rule."""
    if encoding.max_NJ is not None:
        from sparsify_core.kernels import fast  # see encode

        return Selection(*fast.select(encoding.pre_NM, encoding.max_NJ, "topk", k))
    return Selection(select_topk(encoding.pre_NM, k))


@Span("decode")
def decode(
    coder: SparseCoder, encoding: Encoding, selection: Selection, *, trains_encoder: bool = True
) -> tuple[Tensor, Latents]:
    """What the selected latents decode to (N, E), without bias and skip, and their activations.

    The first is differentiable in x and in the weights; the activations are for counting.

    Args:
        trains_encoder: False lets the gradient reach the decoder alone.
    """
    if encoding.low_ND is not None:
        return _decode_fast(coder, encoding, encoding.low_ND, selection, trains_encoder=trains_encoder)
    latents = coder.encode_selected(encoding.x_ND, encoding.pre_NM, selection)
    if not trains_encoder:
        latents = latents._replace(acts=latents.acts.detach())
    return coder.weighted_rows(latents, len(encoding.x_ND)), latents


@Span("decode")
def squared_error(
    coder: SparseCoder,
    encoding: Encoding,
    selection: Selection,
    y_NE: Tensor,
    *,
    trains_encoder: bool = True,
    fired_M: Tensor | None = None,
) -> tuple[Tensor, Tensor, Latents]:
    """sum |y - reconstruction|^2, a scalar with its graph; the residual (N, E) without one; and the active latents.

    Args:
        trains_encoder: False lets the gradient reach the decoder alone.
        fired_M: int32, to which is added on how many tokens each latent is positive; on the fast path by backward,
            whose kernels find it on the way.
    """
    if encoding.low_ND is None:
        decoded_NE, latents = decode(coder, encoding, selection, trains_encoder=trains_encoder)
        residual_NE = y_NE - coder.complete(encoding.x_ND, decoded_NE)
        if fired_M is not None:
            add_fired(fired_M, latents.indices, latents.acts > 0)
        return residual_NE.square().sum(), residual_NE.detach(), latents
    from sparsify_core.kernels import squared_error as kernels  # see encode

    latents = _activations(encoding, selection)
    error, residual_NE = kernels.squared_error(
        _weights_of(coder, trains_encoder=trains_encoder),
        _target_of_decoder(coder, encoding, y_NE),
        encoding.low_ND,
        coder.in_bfloat16(coder.W_dec),
        *latents,
        straight_through=coder.straight_through,
        fired_M=fired_M,
    )
    return error, residual_NE, latents


def add_fired(fired_M: Tensor, indices: Tensor, fired: Tensor) -> None:
    """Add to int32 `fired_M` how often each latent stands in `indices` where `fired`, a mask of the same shape."""
    fired_M.scatter_add_(0, indices.flatten().long(), fired.flatten().int())


class NestedErrors(NamedTuple):
    """Of two reconstructions, from the k largest latents and from more of them.

    `loss` is the sum of both squared errors, the second weighted, with its graph; the others have none: the errors,
    the residual (N, E) and the latents of the first.
    """

    loss: Tensor
    error: Tensor
    wider_error: Tensor
    residual_NE: Tensor
    latents: Latents


def nested_errors(
    coder: SparseCoder, encoding: Encoding, y_NE: Tensor, number: int, weight: float
) -> NestedErrors | None:
    """The squared errors with k and with `number` latents; None where they cannot be had in one pass."""
    if encoding.low_ND is None or encoding.max_NJ is None or coder.straight_through:
        return None
    tokens, latents = encoding.pre_NM.shape
    if not dispatch.choose_nested(coder.activation, tokens=tokens, latents=latents, k=number).is_kernel:
        return None
    from sparsify_core.kernels import fast, squared_error  # see encode

    with Span("select"):
        indices, _, acts = fast.select_nested(encoding.pre_NM, encoding.max_NJ, coder.k, number)
    with Span("decode"):
        loss, errors_2, residual_NE = squared_error.nested_error(
            _weights_of(coder, trains_encoder=True),
            _target_of_decoder(coder, encoding, y_NE),
            encoding.low_ND,
            coder.in_bfloat16(coder.W_dec),
            acts,
            indices,
            first=coder.k,
            weight=weight,
        )
    return NestedErrors(loss, errors_2[0], errors_2[1], residual_NE, Latents(acts[:, : coder.k], indices[:, : coder.k]))


def _target_of_decoder(coder: SparseCoder, encoding: Encoding, y_NE: Tensor) -> Tensor:
    """(N, E) what the latents and b_dec alone are to reconstruct."""
    return (y_NE if coder.W_skip is None else y_NE - coder.skipped(encoding.x_ND)).contiguous()


def _weights_of(coder: SparseCoder, *, trains_encoder: bool) -> "Weights":
    from sparsify_core.kernels.squared_error import Weights  # see encode

    return Weights(*_encoder_of(coder, is_trained=trains_encoder), coder.W_dec, coder.b_dec)


def _encoder_of(coder: SparseCoder, *, is_trained: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """What the input is centred by (None where it is not, or needs no gradient), and the encoder's weight and bias,
    without a graph unless it `is_trained`."""
    weight, bias = coder.encoder.weight, coder.encoder.bias
    if not is_trained:
        return None, weight.detach(), bias.detach()
    return None if coder.is_transcoder else coder.b_dec, weight, bias


@torch.no_grad()
def _activations(encoding: Encoding, selection: Selection) -> Latents:
    pre_NM, (indices, tokens_P, acts) = encoding.pre_NM, selection
    if acts is not None:
        return Latents(acts, indices, tokens_P)
    acts = pre_NM.gather(1, indices) if tokens_P is None else pre_NM[tokens_P, indices]
    return Latents(acts.relu_(), indices, tokens_P)


@Span("decode")
def dead_error(coder: SparseCoder, encoding: Encoding, residual_NE: Tensor, dead_C: Tensor, k: int) -> Tensor:
    """sum |what the k strongest of the latents `dead_C` decode to - residual|^2, a scalar with its graph.

    Bias and skip have no part in it.
    """
    trains_encoder = not coder.straight_through
    if encoding.low_ND is None:
        with Span("select"):
            selection = Selection(select_topk_among(encoding.pre_NM, dead_C, k))
    else:
        from sparsify_core.kernels import dead_error, fast  # see encode

        if dispatch.choose_dead(len(dead_C)).is_kernel:
            return dead_error.dead_error(
                encoding.low_ND,
                *_encoder_of(coder, is_trained=trains_encoder),
                coder.W_dec,
                coder.in_bfloat16(coder.encoder.weight),
                coder.in_bfloat16(coder.W_dec),
                residual_NE,
                dead_C,
                k,
            )
        with Span("select"):
            selection = Selection(*fast.select_among(encoding.pre_NM, dead_C, k))
    decoded_NE = decode(coder, encoding, selection, trains_encoder=trains_encoder)[0]
    return (decoded_NE - residual_NE).square().sum()


def _decode_fast(
    coder: SparseCoder, encoding: Encoding, low_ND: Tensor, selection: Selection, *, trains_encoder: bool
) -> tuple[Tensor, Latents]:
    from sparsify_core.kernels import fast  # see encode

    latents = _activations(encoding, selection)
    # End to end x has a graph; else its centre is all that needs a gradient, and that one is cheaper.
    has_graph = encoding.x_ND.requires_grad and trains_encoder
    centre_D, W_enc, b_enc = _encoder_of(coder, is_trained=trains_encoder)
    decoded_NE = fast.code(
        coder.centred(encoding.x_ND).bfloat16() if has_graph else low_ND,
        None if has_graph else centre_D,
        W_enc,
        b_enc,
        coder.W_dec,
        coder.in_bfloat16(coder.W_dec),
        *latents,
        straight_through=coder.straight_through,
    )
    return decoded_NE, latents
