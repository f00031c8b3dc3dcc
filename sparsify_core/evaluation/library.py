"""`sparsify_core.evaluate`: held-out evaluation for other programs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sparsify_core.errors import CheckpointError, ConfigError, DataError, ModelError
from sparsify_core.evaluation.coders import device_of, evaluate_coders, has_head
from sparsify_core.evaluation.held_out import HeldOut
from sparsify_core.evaluation.result import Evaluation
from sparsify_core.formats.library import SparseCoder
from sparsify_core.model import coder as trainer


def evaluate(
    coders: Mapping[str, SparseCoder],
    model: nn.Module,
    tokens: Tensor | npt.NDArray[np.integer[Any]],
    *,
    downstream: bool = True,
    exclude_tokens: Sequence[int] = (),
    exclude_first: int = 0,
    batch_size: int = 8,
) -> Evaluation:
    """Measure sparse coders on tokens that they were not trained on; model and coders are left as they are.

    The numbers do not depend on `batch_size`. Coders are computed in float32 on the model's device.

    Args:
        coders: by name, `hookpoint` or `hookpoint/seedN`, as `SparseCoder.load_many` gives them.
        model: a transformers model in eval mode; with its head for the downstream metrics.
        tokens: ids (n, L) of any integer type.
        downstream: also measure what splicing each coder's reconstruction in does to the model's predictions.
        exclude_tokens: token ids whose positions are left out.
        exclude_first: positions left out at the start of every sequence.
        batch_size: sequences per forward at most.

    Returns:
        `.values[coder][metric]`, metrics as in sparsify_core.metrics; `.to_json()` is the content of eval.json.

    Raises ConfigError, CheckpointError, HookpointError, ModelError or DataError when something does not fit.
    """
    if not coders:
        raise ConfigError("there are no coders to evaluate: give at least one")
    if batch_size < 1 or exclude_first < 0:
        raise ConfigError(f"batch_size is {batch_size} and exclude_first {exclude_first}: give at least 1 and 0")
    if model.training:
        raise ModelError("the model is in training mode, where dropout disturbs every number: call model.eval() first")
    if downstream and not has_head(model):
        raise ModelError(
            f"{type(model).__name__} has no language-model head to predict with: give the causal language model, or "
            "downstream=False"
        )
    device = device_of(model)
    return evaluate_coders(
        model,
        {name: _in_float32(name, coder, device) for name, coder in coders.items()},
        HeldOut(_token_ids(tokens), exclude_tokens, exclude_first),
        downstream=downstream,
        batch_size=batch_size,
    )


def _token_ids(tokens: Tensor | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    ids = np.asarray(tokens.cpu() if isinstance(tokens, Tensor) else tokens)
    if ids.ndim != 2 or ids.shape[0] < 1 or ids.shape[1] < 2 or ids.dtype.kind not in "iu" or ids.min() < 0:
        raise DataError(
            f"tokens must be ids (sequences, at least 2 tokens), got {ids.dtype} of shape {ids.shape}: cut them into "
            "sequences of one length"
        )
    return ids.astype(np.int64)


def _in_float32(name: str, coder: SparseCoder, device: torch.device) -> trainer.SparseCoder:
    """The coder as the trainer's class, which has other results; its weights are shared where they need no change."""
    if coder.W_dec is None:
        raise CheckpointError(f"coder {name} was loaded with decoder=False: it can only encode")
    with torch.device("meta"):
        plain = trainer.SparseCoder(coder.d_in, coder.cfg, d_out=coder.d_out, seed=None)
    weights = {key: tensor.to(device=device, dtype=torch.float32) for key, tensor in coder.state_dict().items()}
    plain.load_state_dict(weights, assign=True)
    plain.k = coder.k
    return plain
