"""Optimizers of the sparse coders, with upstream's learning rates."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from schedulefree.wrap_schedulefree import ScheduleFreeWrapper
from torch import Tensor, nn

from sparsify_core.config import RunConfig
from sparsify_core.errors import CheckpointError
from sparsify_core.kernels import dispatch
from sparsify_core.model.coder import SparseCoder
from sparsify_core.model.losses import Entries
from sparsify_core.timing import Span
from sparsify_core.train.adam import build_adam, resolve_bits
from sparsify_core.train.fused import adam_step, muon_step, signum_step
from sparsify_core.train.muon import Muon
from sparsify_core.train.schedule import default_lr, lr_factor

_SIGNUM_MOMENTUM = 0.95
_GROUP_SCALARS = ("lr", "lr_max", "weight_sum", "k", "bits")


class SignSGD(torch.optim.Optimizer):
    """p -= lr * sign(gradient)."""

    def __init__(self, params: list[dict[str, Any]]) -> None:
        super().__init__(params, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            signs = torch._foreach_sign([p.grad for p in params])
            torch._foreach_add_(params, signs, alpha=-group["lr"])


@dataclass
class _Own:
    """The optimizers of one coder, each with one parameter group: one, or under muon two, for matrices and biases."""

    bases: list[torch.optim.Optimizer]
    schedule_free: Any = None


class CoderOptimizer:
    """The optimizers of all coders. Coders are stepped one by one, each as soon as its gradient is complete.

    Args:
        coders: by name.
        num_steps: length of the run; the rates of adam and muon fall to 0 over it.
    """

    def __init__(self, config: RunConfig, coders: Mapping[str, SparseCoder], num_steps: int) -> None:
        self._coders = coders
        self._params = {f"{name}/{key}": p for name, coder in coders.items() for key, p in coder.named_parameters()}
        self._num_steps = num_steps
        self._starts_at_zero = config.upstream_compat
        bits = 32
        if config.optimizer == "adam":
            bits = resolve_bits(config, next(iter(self._params.values())).device)
        self._own = {name: _build(config, coder, bits) for name, coder in coders.items()}
        self._is_fused = bits == 32 and all(coder.trains_fast for coder in coders.values())
        self._is_elementwise = config.optimizer != "muon"

    def lr(self, step: int) -> float:
        """Rate of the first coder's first group in optimizer step `step`, counted from 0."""
        own = next(iter(self._own.values()))
        return self._rate(own, own.bases[0].param_groups[0], step)

    def steps_at_once(self, name: str) -> bool:
        """Whether `step` would rather be given what the gradients are made of."""
        coder = self._coders[name]
        shape = {"latents": coder.num_latents, "d_in": coder.d_in, "d_out": coder.d_out}
        return self._is_fused and self._is_elementwise and dispatch.choose_update(**shape).is_kernel

    @Span("optimizer")
    def step(self, step: int, name: str, scale: Tensor, entries: Entries | None = None) -> None:
        """Optimizer step number `step`, counted from 0, of the coder `name`; its gradients are gone afterwards.

        A decoder of unit rows stays one: its gradient along each row, which would only be undone, is left out.

        Args:
            scale: what the gradients are multiplied by, a float32 scalar on their device.
            entries: what they are made of, where they were not made: only if `steps_at_once`.
        """
        coder, own = self._coders[name], self._own[name]
        for group in (group for base in own.bases for group in base.param_groups):
            group["lr"] = self._rate(own, group, step)
        if self._is_fused:
            _step_fused(coder, own, scale, entries)
        else:
            _step_in_turn(coder, own, scale)
        for base in own.bases:
            base.zero_grad(set_to_none=True)

    def _rate(self, own: _Own, group: Mapping[str, Any], step: int) -> float:
        if own.schedule_free is not None:
            return float(group["lr"])
        factor = lr_factor(step, self._num_steps, group["warmup_steps"], starts_at_zero=self._starts_at_zero)
        return float(group["peak_lr"]) * factor

    @contextmanager
    @torch.no_grad()
    def deployed_weights(self) -> Iterator[dict[str, Tensor]]:
        """Inside, the coders hold the weights to evaluate and save; afterwards, bit for bit, those to train on.

        They differ for schedule-free optimizers only, which train at one point and answer with a running average.
        Averaging leaves decoder rows short of unit norm, and they stay so: docs/decisions/0008.
        Yields the weights to train on, where they differ.
        """
        wrappers = [own.schedule_free for own in self._own.values() if own.schedule_free is not None]
        if not wrappers:
            yield {}
            return
        backup = {name: p.clone() for name, p in self._params.items()}
        self._forget_rounded()
        for wrapper in wrappers:
            wrapper.eval()
        try:
            yield backup
        finally:
            for wrapper in wrappers:
                wrapper.train()
            # train() only recomputes the training point up to rounding.
            for name, p in self._params.items():
                p.copy_(backup[name])

    @torch.no_grad()
    def go_to_training_point(self) -> Mapping[str, Tensor]:
        """From deployed weights, with the state restored, to those to train on, which are returned by name.

        For a schedule-free optimizer y = momentum * x + (1 - momentum) * z, of deployed x and state z.
        """
        self._forget_rounded()
        for own in self._own.values():
            if own.schedule_free is not None:
                own.schedule_free.train_mode = False
                own.schedule_free.train()
        for coder in self._coders.values():
            if coder.normalizes_decoder:
                coder.normalize_decoder()
        return self._params

    def tensors(self) -> dict[str, Tensor]:
        """State by `coder/parameter/key`; a plain int, which bitsandbytes counts steps in, as int64."""
        return {
            f"{name}/{key}": torch.as_tensor(value)
            for name, p in self._params.items()
            for key, value in self._state(p).items()
        }

    def scalars(self) -> dict[str, list[dict[str, float]]]:
        """Numbers of each coder's parameter groups, one per optimizer."""
        return {
            name: [{key: group[key] for key in _GROUP_SCALARS if key in group} for group in groups]
            for name, groups in self._groups_by_coder().items()
        }

    @torch.no_grad()
    def restore(
        self,
        tensors: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        scalars: Mapping[str, Sequence[Mapping[str, float]]],
    ) -> None:
        """Put back what `tensors`, `deployed_weights` and `scalars` gave; that of other coders is left alone.

        Raises CheckpointError when Adam's state has another number of bits.
        """
        self._refuse_other_bits(scalars)
        self._forget_rounded()
        for name, p in self._params.items():
            if name in weights:
                p.copy_(weights[name])
            prefix = f"{name}/"
            self._state(p).update(
                {key.removeprefix(prefix): _loaded(v, p) for key, v in tensors.items() if key.startswith(prefix)}
            )
        for name, groups in self._groups_by_coder().items():
            for group, numbers in zip(groups, scalars[name], strict=True):
                # The rate is the configuration's: of a fork it may be another than the checkpoint's.
                group.update({key: value for key, value in numbers.items() if key != "lr"})

    def _forget_rounded(self) -> None:
        for coder in self._coders.values():
            coder.rounded.clear()

    def _refuse_other_bits(self, scalars: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
        for name, groups in self._groups_by_coder().items():
            for group, numbers in zip(groups, scalars[name], strict=True):
                saved, own = (int(values.get("bits", 32)) for values in (numbers, group))
                if saved != own:
                    raise CheckpointError(
                        f"the checkpoint's adam has its state in {saved} bits and this attempt's has it in {own}: "
                        f"resume with adam_bits {saved}, or start a new run"
                    )

    def _groups_by_coder(self) -> dict[str, list[dict[str, Any]]]:
        return {name: [group for base in own.bases for group in base.param_groups] for name, own in self._own.items()}

    def _state(self, p: Tensor) -> dict[str, Any]:
        """State of a parameter in the optimizer that it belongs to."""
        for base in (base for own in self._own.values() for base in own.bases):
            if any(p is own for group in base.param_groups for own in group["params"]):
                state: dict[str, Any] = base.state[p]
                return state
        raise KeyError("parameter of another optimizer")


def _build(config: RunConfig, coder: SparseCoder, bits: int) -> _Own:
    if config.optimizer == "signum":
        own = _Own([SignSGD([_group(config, coder)])])
        own.schedule_free = ScheduleFreeWrapper(own.bases[0], momentum=_SIGNUM_MOMENTUM)
        own.schedule_free.train()
        return own
    if config.optimizer == "muon":
        return _Own(
            [
                Muon([_group(config, coder, matrices=True)]),
                torch.optim.Adam([_group(config, coder, matrices=False)], fused=True),
            ]
        )
    return _Own([build_adam([{**_group(config, coder), "bits": bits}], bits)])


def _step_fused(coder: SparseCoder, own: _Own, scale: Tensor, entries: Entries | None) -> None:
    base = own.bases[0]
    group = base.param_groups[0]
    if isinstance(base, Muon):
        muon_step(coder, base, own.bases[1], scale)
    elif own.schedule_free is not None:
        signum_step(coder, group, base.state, scale, entries, momentum=_SIGNUM_MOMENTUM)
    else:
        adam_step(coder, group, base.state, scale, entries)


def _step_in_turn(coder: SparseCoder, own: _Own, scale: Tensor) -> None:
    scale_gradients(coder, scale)
    if coder.normalizes_decoder:
        coder.remove_parallel_gradient()
    for optimizer in own.bases if own.schedule_free is None else [own.schedule_free]:
        optimizer.step()
    if coder.normalizes_decoder:
        coder.normalize_decoder()


def _loaded(value: Tensor, p: Tensor) -> Tensor | int:
    """A value of the state as the optimizer of `p` had it."""
    is_count = value.dtype == torch.int64 and value.dim() == 0
    return int(value) if is_count else value.to(p.device)


def _group(config: RunConfig, coder: SparseCoder, *, matrices: bool | None = None) -> dict[str, Any]:
    """The parameter group of a coder: all parameters, or only the matrices, or only the others."""
    lr = config.lr or default_lr(config.optimizer, coder.num_latents)
    return {
        "params": [p for p in coder.parameters() if matrices is None or (p.dim() >= 2) is matrices],
        "lr": lr,
        "peak_lr": lr,
        "warmup_steps": 0 if matrices else config.lr_warmup_steps,
    }


def scale_gradients(coder: nn.Module, factor: Tensor) -> None:
    """Multiply all gradients of `coder` by a scalar on its device."""
    grads = [p.grad for p in coder.parameters() if p.grad is not None]
    torch._foreach_mul_(grads, factor.to(grads[0].dtype))
