"""Evaluate coders that were loaded, not trained, here: find their hookpoints in the model and see that all fits."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.errors import CheckpointError, DataError, HookpointError
from sparsify_core.evaluation.held_out import HeldOut
from sparsify_core.evaluation.measure import measure
from sparsify_core.evaluation.reconstruction import Coders
from sparsify_core.evaluation.result import Evaluation
from sparsify_core.model.coder import SparseCoder


def evaluate_coders(
    model: nn.Module,
    coders: Mapping[str, SparseCoder],
    held_out: HeldOut,
    *,
    downstream: bool,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure `coders`, named by their hookpoints, on a transformers model in eval mode on the same device.

    Args:
        downstream: also measure what splicing does to the predictions; the model has its head then.

    Raises HookpointError when the model has not the module of a coder, CheckpointError when the widths differ,
    DataError when the model does not know the tokens or all are excluded.
    """
    base: Any = model.base_model
    grouped = by_hookpoint(base, coders)
    _check_vocabulary(base, held_out)
    tap = ActivationTap(base, list(grouped), needs_inputs=any(c.is_transcoder for c in coders.values()))
    try:
        _check_widths(tap, grouped)
        evaluation = measure(
            tap,
            grouped,
            held_out,
            lm=model if downstream else None,
            batch_size=batch_size,
            progress=progress,
        )
    finally:
        tap.close()
    if evaluation is None:
        raise DataError("all tokens are excluded from the evaluation: exclude fewer")
    return evaluation


def by_hookpoint(base: nn.Module, coders: Mapping[str, SparseCoder]) -> dict[str, dict[str, SparseCoder]]:
    """Sort coders by their modules below `base`; names are `hookpoint` or `hookpoint/seedN`, and hookpoints may begin
    with the base model's own name (`model.layers.3`).

    Raises HookpointError when there is no such module.
    """
    names = {name for name, _ in base.named_modules() if name}
    grouped: dict[str, dict[str, SparseCoder]] = {}
    for name, coder in coders.items():
        written = name.partition("/")[0]
        short = written.removeprefix(f"{getattr(base, 'base_model_prefix', '')}.")
        hookpoint = written if written in names else short
        if hookpoint not in names:
            raise HookpointError(
                f"the model has no module {written}, which coder {name} belongs to: give its own model"
            )
        grouped.setdefault(hookpoint, {})[name] = coder
    return grouped


def _check_widths(tap: ActivationTap, grouped: Coders) -> None:
    device = next(coder.b_dec.device for group in grouped.values() for coder in group.values())
    for hookpoint, (d_in, d_out) in tap.widths(device).items():
        for name, coder in grouped[hookpoint].items():
            found = (d_in if coder.is_transcoder else d_out, d_out)
            if (coder.d_in, coder.d_out) != found:
                raise CheckpointError(
                    f"coder {name} maps width {coder.d_in} to {coder.d_out}, but {hookpoint} of the model has "
                    f"{found[0]} and {found[1]}: give its own model"
                )


def _check_vocabulary(base: Any, held_out: HeldOut) -> None:
    num_tokens, largest = int(base.get_input_embeddings().num_embeddings), int(held_out.tokens.max())
    if largest >= num_tokens:
        raise DataError(
            f"the tokens have id {largest}, but the model knows only ids below {num_tokens}: "
            "they were made for another model"
        )


def has_head(model: Any) -> bool:
    """Whether a transformers model predicts tokens."""
    return model.base_model is not model and model.get_output_embeddings() is not None


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
