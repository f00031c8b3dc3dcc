"""A run, resolved: which coders each process trains, on how many tokens, behind how much of the language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from server.planning.device import Device
from sparsify_core.config import RunConfig
from sparsify_core.errors import HookpointError
from sparsify_core.hookpoints import choose_layers, match_patterns
from sparsify_core.shape import ModelShape
from sparsify_core.sizes import CoderSize
from sparsify_core.train.placement import CoderSpec, Placement, check_processes, place


class WidthUnknownError(HookpointError):
    """How wide a hookpoint is cannot be told without the model's weights; the trainer will see."""


@dataclass(frozen=True)
class Job:
    """What `num_processes` processes do, one per device; make it by `make_job`."""

    config: RunConfig
    shape: ModelShape
    placement: Placement
    num_processes: int
    device: Device
    first_step: int = 0
    """Behind which it goes on: another run has trained up to there."""

    @property
    def sequences_per_step(self) -> int:
        """Of all processes."""
        return self.config.batch_size * self.config.grad_acc_steps * self.num_processes

    @property
    def tokens_per_step(self) -> int:
        """Of all processes."""
        return self.sequences_per_step * self.config.ctx_len

    @property
    def batch_tokens(self) -> int:
        """That go through the language model at once, in one process."""
        sequences = self.config.batch_size
        if self.is_end_to_end:
            sequences = max(1, sequences // self.config.micro_acc_steps)
        return sequences * self.config.ctx_len

    @property
    def coder_tokens(self) -> int:
        """That a coder sees at once: those that count, of one chunk of a batch, of all processes under
        `distribute_modules`."""
        config = self.config
        batch = config.batch_size * (config.ctx_len - config.exclude_first)
        together = self.num_processes if config.distribute_modules else 1
        return max(1, batch * together // config.micro_acc_steps)

    @property
    def num_tokens(self) -> int | None:
        """Of the whole run; None: as many as the dataset has, which is not known before it is opened."""
        config = self.config
        known = config.max_tokens
        if config.max_examples is not None:
            held_out = min(config.eval_tokens, config.max_examples * config.ctx_len // 10)
            of_examples = (config.max_examples * config.ctx_len - held_out) * config.num_epochs
            known = of_examples if known is None else min(known, of_examples)
        return known

    @property
    def num_steps(self) -> int | None:
        """Of the whole training, with those before `first_step`."""
        return None if self.num_tokens is None else self.num_tokens // self.config.ctx_len // self.sequences_per_step

    @property
    def steps_left(self) -> int | None:
        """That it makes itself."""
        return None if self.num_steps is None else max(0, self.num_steps - self.first_step)

    def num_times(self, every: int) -> int:
        """How often it does what is done after every so many steps; 0 where its length is not known."""
        return max(0, (self.num_steps or 0) // every - self.first_step // every)

    @property
    def num_saves(self) -> int:
        """Checkpoints, with that of the last step; 0 where its length is not known."""
        is_between = bool(self.steps_left) and (self.num_steps or 0) % self.config.save_every != 0
        return self.num_times(self.config.save_every) + is_between

    @property
    def is_end_to_end(self) -> bool:
        return self.config.loss_fn != "fvu"

    @property
    def has_head(self) -> bool:
        """Whether the language model is loaded with it."""
        return self.is_end_to_end or self.config.eval_downstream

    @cached_property
    def coders(self) -> list[CoderSize]:
        """Of the process that has most of them."""
        ranks = range(self.num_processes if self.config.distribute_modules else 1)
        shares = [[self._size(spec) for spec in self.placement.trained_by(rank)] for rank in ranks]
        return max(shares, key=lambda share: sum(coder.num_parameters for coder in share))

    @cached_property
    def all_coders(self) -> list[CoderSize]:
        """Of the whole run, each once."""
        return [self._size(spec) for spec in self.placement.coders]

    def _size(self, spec: CoderSpec) -> CoderSize:
        sae = self.config.sae
        return CoderSize(spec.d_in, spec.d_out, spec.num_latents, sae.k, has_skip=sae.skip_connection)

    @cached_property
    def layers_run(self) -> int:
        """Layers of the model that run: those up to the deepest hookpoint's, or all of them end to end."""
        last = self.shape.num_layers - 1
        return (
            last + 1 if self.is_end_to_end else max(self._layer(spec.hookpoint) for spec in self.placement.coders) + 1
        )

    @cached_property
    def layers_behind(self) -> int:
        """Layers behind the first hookpoint, through which end-to-end losses go back."""
        return self.shape.num_layers - min(self._layer(spec.hookpoint) for spec in self.placement.coders) - 1

    def _layer(self, hookpoint: str) -> int:
        """Which layer a hookpoint lies in; where that cannot be told, the last one."""
        prefix = f"{self.shape.layers}."
        if self.shape.layers is None or not hookpoint.startswith(prefix):
            return self.shape.num_layers - 1
        return int(hookpoint.removeprefix(prefix).partition(".")[0])

    @cached_property
    def layer_parameters(self) -> float:
        """Of one layer."""
        sizes = {module.path: module.num_parameters for module in self.shape.modules}
        first = sizes.get(f"{self.shape.layers}.0")
        if first is not None:
            return first
        embedding = self.shape.vocab_size * self.shape.hidden_size
        return max(0, self.shape.num_parameters - embedding) / max(1, self.shape.num_layers)


def make_job(config: RunConfig, shape: ModelShape, *, num_processes: int, device: Device, first_step: int = 0) -> Job:
    """Raises ConfigError or HookpointError where the trainer would, WidthUnknownError where nobody can tell."""
    placement = resolve(config, shape, num_processes=num_processes)
    return Job(config, shape, placement, num_processes, device, first_step)


def resolve(config: RunConfig, shape: ModelShape, *, num_processes: int) -> Placement:
    """Hookpoints and coders of a run. Raises as `make_job` does."""
    check_processes(config, num_processes)
    widths = {module.path: (module.d_in, module.d_out) for module in shape.modules}
    hookpoints = chosen_hookpoints(config, shape)
    learned: dict[str, tuple[int, int]] = {}
    for hookpoint in hookpoints:
        d_in, d_out = widths[hookpoint]
        if not config.sae.transcode:
            d_in = d_out
        if d_in is None or d_out is None:
            if not shape.knows_widths:
                raise WidthUnknownError(f"how wide {hookpoint} is cannot be told without the model's weights")
            raise HookpointError(f"{hookpoint} gives no vector for each token, so nothing can be learned there")
        learned[hookpoint] = (d_in, d_out)
    return place(config, learned, hookpoints, num_processes)


def chosen_hookpoints(config: RunConfig, shape: ModelShape) -> Sequence[str]:
    """Raises HookpointError when a pattern matches nothing or a layer does not exist."""
    if config.hookpoints:
        return match_patterns([module.path for module in shape.modules], config.hookpoints)[:: config.layer_stride]
    if shape.layers is None:
        raise HookpointError("the model's layers cannot be told: name the modules with hookpoints")
    return choose_layers(shape.layers, shape.num_layers, config.layers)[:: config.layer_stride]
