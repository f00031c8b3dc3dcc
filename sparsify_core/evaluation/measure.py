"""One evaluation of coders on held-out tokens, from a hooked model to numbers."""

from collections.abc import Callable

import torch
from torch import nn

from sparsify_core.capture.forward import ActivationTap
from sparsify_core.evaluation.downstream import count_forwards, measure_downstream
from sparsify_core.evaluation.held_out import HeldOut
from sparsify_core.evaluation.reconstruction import Coders, measure_reconstruction
from sparsify_core.evaluation.result import Evaluation, density, finite


@torch.no_grad()
def measure(
    tap: ActivationTap,
    coders: Coders,
    held_out: HeldOut,
    *,
    lm: nn.Module | None,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation | None:
    """Run the coders, and the model with each of them spliced in, over the held-out tokens. Changes nothing.

    Args:
        tap: on the base model; its hookpoints that `coders` does not name are left alone.
        lm: the causal language model, for the downstream metrics; None leaves them out.
        batch_size: sequences per forward at most.
        should_stop: asked again and again; when it says yes, the evaluation is given up and None returned.
        progress: told how many sequences went through the model, and how many will.

    Returns:
        None also when every held-out token is excluded.
    """
    done, total = 0, len(held_out.tokens) * (1 + (count_forwards(coders) if lm is not None else 0))

    def advance(num_sequences: int) -> None:
        nonlocal done
        done += num_sequences
        progress(done, total)

    found = measure_reconstruction(
        tap, coders, held_out, batch_size=batch_size, should_stop=should_stop, advance=advance
    )
    if found is None:
        return None
    values = found.values
    if lm is not None:
        downstream = measure_downstream(
            lm, coders, found.means, held_out, batch_size=batch_size, should_stop=should_stop, advance=advance
        )
        if downstream is None:
            return None
        values = {name: numbers | downstream[name] for name, numbers in values.items()}
    return Evaluation(
        values={name: finite(numbers) for name, numbers in values.items()},
        density={name: density(stats.firing_count_M, found.num_tokens) for name, stats in found.latents.items()},
        latents=found.latents,
        num_tokens=found.num_tokens,
        held_out=held_out,
    )
