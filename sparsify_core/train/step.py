"""What one optimizer step gathers for one coder, over its micro-batches and over all processes."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsify_core.capture.forward import ActivationSource
from sparsify_core.config import RunConfig
from sparsify_core.model.coder import Latents, Selection, SparseCoder
from sparsify_core.model.encoding import add_fired, decode, encode, select, squared_error, target_sums
from sparsify_core.model.losses import Entries, Moments, loss_sums
from sparsify_core.model.selection import select_from
from sparsify_core.timing import Span
from sparsify_core.train.dead import DeadLatents
from sparsify_core.train.optim import scale_gradients
from sparsify_core.train.threshold import threshold_of
from sparsify_core.train.units import Unit

_ROUNDING = 1e-6
"""Behind a coder that maps all tokens to one point (an untrained transcoder does), the spliced model has no variance:
below this share of the mean square it is what float32 squares leave over, and the FVU is NaN."""


class Batch(NamedTuple):
    """Token ids (B, L) and the rows that count (None: all), on the device, and where the activations come from."""

    input_ids: Tensor
    kept: Tensor | None
    source: ActivationSource


class StepStats(NamedTuple):
    """Numbers of one coder and step: float64 tensors, or floats once they are on the host."""

    fvu: Any
    dead_frac: Any
    l0: Any
    kept_tokens: Any
    auxk: Any
    multi_topk_fvu: Any
    token_loss: Any


def has_one_selection(config: RunConfig, coder: SparseCoder) -> bool:
    """Whether all of a step's gradient comes from one selection of latents in one batch of this process."""
    has_other_losses = config.loss_fn != "fvu" or config.auxk_alpha or config.sae.multi_topk or config.upstream_compat
    is_one_batch = config.grad_acc_steps == config.micro_acc_steps == 1
    return is_one_batch and not has_other_losses and coder.W_skip is None


class StepSums:
    """Gradients in the coder's `.grad`, sums of everything else here; the ratio is taken at the end of the step.

    Args:
        keeps_entries: keep what the gradients are made of in `entries` instead of making them; only where
            `has_one_selection`.
    """

    def __init__(self, unit: Unit, config: RunConfig, *, keeps_entries: bool = False) -> None:
        coder = unit.coder
        self._keeps_entries = keeps_entries
        self.entries: Entries | None = None
        self._unit = unit
        self._config = config
        # error, AuxK, Multi-TopK, active latents
        self.sums_4 = torch.zeros(4, dtype=torch.float64, device=coder.b_dec.device)
        # of end-to-end training: summed loss, predicted tokens
        self.token_loss = torch.zeros((), dtype=torch.float64, device=coder.b_dec.device)
        self.num_predicted = torch.zeros_like(self.token_loss)
        # on how many tokens each latent was positive; as upstream: on how many it was chosen
        self.fired_M = torch.zeros(coder.num_latents, dtype=torch.int32, device=coder.b_dec.device)
        self._scale: Tensor | None = None
        self._dead: DeadLatents | None = None
        if config.auxk_alpha:
            self._dead = DeadLatents(unit.tokens_since_fired_M > config.dead_feature_threshold)

    @cached_property
    def moments(self) -> Moments:
        """Of the targets, around b_dec, which is near their mean, the same on every process and constant within the
        step: but not before this coder trains, for the step before may have left its update to then.
        """
        return Moments(self._unit.coder.b_dec.detach().clone())

    def add(self, x_ND: Tensor, y_NE: Tensor) -> None:
        """Forward and backward on one batch, in `micro_acc_steps` chunks."""
        if self._config.upstream_compat and self._scale is None:
            # As upstream, divide before the tokens are summed: where the true gradient is 0 (b_dec of an untrained
            # transcoder), rounding decides on its sign, and that is all that signum looks at.
            y_wide_NE = y_NE.float()
            self._scale = 1 / (y_wide_NE - y_wide_NE.mean(0)).pow(2).sum()
        if self._keeps_entries:
            self._keep_entries(x_ND, y_NE)
            return
        chunks = self._config.micro_acc_steps
        selection = None
        if self._unit.coder.uses_batchtopk and chunks > 1:
            selection = self._shared_selection(x_ND.chunk(chunks))
        for x_part, y_part in zip(x_ND.chunk(chunks), y_NE.chunk(chunks), strict=True):
            self._add_chunk(x_part, y_part, selection)

    def take_entries(self) -> Entries | None:
        """Hand `entries` over, and let go of them."""
        entries, self.entries = self.entries, None
        return entries

    @torch.no_grad()
    def _keep_entries(self, x_ND: Tensor, y_NE: Tensor) -> None:
        coder = self._unit.coder
        encoding = encode(coder, x_ND)
        error, residual_NE, latents = squared_error(coder, encoding, select(coder, encoding), y_NE)
        self.entries = Entries(torch.as_tensor(encoding.low_ND), residual_NE, latents, self.fired_M)
        self._count_alone(y_NE, target_sums(coder, encoding, y_NE), latents, error)

    @Span("select")
    def _shared_selection(self, x_parts: Sequence[Tensor]) -> Callable[[Tensor], Selection]:
        """The batch's BatchTopK selection for its chunks. It costs each of them a second pass through the encoder."""
        coder = self._unit.coder
        num_active = coder.k * sum(len(x_ND) for x_ND in x_parts)
        threshold = threshold_of((encode(coder, x_ND).pre_NM for x_ND in x_parts), num_active)

        @Span("select")
        def reaching(pre_NM: Tensor) -> Selection:
            tokens_P, latents_P = select_from(pre_NM, threshold)
            return Selection(latents_P, tokens_P)

        return reaching

    def _add_chunk(self, x_ND: Tensor, y_NE: Tensor, selection: Callable[[Tensor], Selection] | None) -> None:
        with torch.enable_grad():
            sums = loss_sums(
                self._unit.coder,
                x_ND,
                y_NE,
                auxk_alpha=self._config.auxk_alpha,
                dead_C=None if self._dead is None else self._dead.indices(),
                multi_topk=self._config.sae.multi_topk,
                fired_M=None if self._config.upstream_compat else self.fired_M,
                selection=selection,
            )
            with Span("backward"):
                sums.loss.backward(self._scale)  # type: ignore[no-untyped-call]
        self.moments.add(y_NE, sums.target_sums)
        if self._config.upstream_compat:
            add_fired(self.fired_M, sums.latents.indices, torch.ones_like(sums.latents.indices))
        self._count(sums.latents, sums.error, sums.auxk, sums.multi_topk)

    def reconstruct(self, x_ND: Tensor, y_NE: Tensor) -> Tensor:
        """The reconstruction (N, E) of `y_NE`, with its graph, for a loss that is computed elsewhere; it is counted
        like any other, but its error is not trained on.
        """
        coder = self._unit.coder
        encoding = encode(coder, x_ND)
        decoded_NE, latents = decode(coder, encoding, select(coder, encoding))
        out_NE = coder.complete(x_ND, decoded_NE)
        with torch.no_grad():
            error = (y_NE - out_NE).square().sum()
            add_fired(self.fired_M, latents.indices, (latents.acts > 0) | self._config.upstream_compat)
            self._count_alone(y_NE, target_sums(coder, encoding, y_NE), latents, error)
        return out_NE

    def add_token_loss(self, loss_sum: Tensor, num_tokens: int) -> None:
        """The loss of the model that the reconstructions were spliced into; its gradient is in `.grad` already."""
        self.token_loss += loss_sum
        self.num_predicted += num_tokens

    def _count_alone(self, y_NE: Tensor, sums: Sequence[Tensor] | None, latents: Latents, error: Tensor) -> None:
        """Count a batch that has no auxiliary losses; `sums` as for Moments.add."""
        zero = torch.zeros_like(error)
        self.moments.add(y_NE, sums)
        self._count(latents, error, zero, zero)

    def _count(self, latents: Latents, *losses: Tensor) -> None:
        """`losses`: the sums of error, AuxK and Multi-TopK."""
        self.sums_4 += torch.stack([*losses, (latents.acts > 0).sum()])

    def tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        """Everything that must be summed over the processes: gradients of the matrices, and all the rest."""
        moments = self.moments
        if self._scale is not None:  # other processes have other scales
            scale_gradients(self._unit.coder, 1 / self._scale)
        grads = []
        for p in self._unit.coder.parameters():
            if p.grad is None:  # every token of this process is excluded, but the others wait for its share
                p.grad = torch.zeros_like(p)
            grads.append(p.grad)
        matrices, vectors = ([grad for grad in grads if (grad.dim() >= 2) is is_matrix] for is_matrix in (True, False))
        token_loss = [self.token_loss, self.num_predicted]
        others = [moments.count, moments.sum_D, moments.square, self.sums_4, *token_loss, self.fired_M]
        return matrices, [*vectors, *others]

    def scale(self) -> Tensor:
        """What turns the summed gradient into that of the loss, a float32 scalar."""
        end_to_end = self._config.loss_fn != "fvu"
        return (1 / (self.num_predicted if end_to_end else self.moments.variance_sum())).float()

    def finish(self) -> tuple[StepStats, Tensor]:
        """Update the dead counters, once all latents that fired are known. Returns also the `scale`."""
        variance, count = self.moments.variance_sum(), self.moments.count
        since = self._unit.tokens_since_fired_M
        since += count.long()
        since[self.fired_M > 0] = 0
        dead_frac = (since > self._config.dead_feature_threshold).double().mean()
        error, auxk, multi_topk, num_active = self.sums_4
        fvu = error / variance
        if self._config.loss_fn != "fvu":
            fvu = fvu.where(variance > _ROUNDING * self.moments.square, torch.nan)
        stats = StepStats(
            fvu=fvu,
            dead_frac=dead_frac,
            l0=num_active / count,
            kept_tokens=count,
            auxk=auxk / variance,
            multi_topk_fvu=multi_topk / variance,
            token_loss=self.token_loss / self.num_predicted.clamp(min=1),
        )
        return stats, self.scale()
