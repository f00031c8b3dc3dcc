"""What somebody should know before a run starts, and the change that mends it. Fields have the names of requests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from server.planning.job import Job
from sparsify_core.config import RunConfig
from sparsify_core.train.schedule import default_lr

WIDE_LATENTS = 32_768
"""From here on many latents die without AuxK (Gao et al. 2024, section 2.4)."""
_AUXK_ALPHA = 1 / 32
_UNUSUAL = 10.0
"""Learning rates that many times the default, or that little of it."""

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Fix:
    """New values of fields, and what setting them does, in words."""

    label: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Warned:
    """`error`: the run would fail. `field` is empty where it is about none."""

    code: str
    severity: Severity
    message: str
    field: str = ""
    fixes: Sequence[Fix] = ()


def warnings_of(config: RunConfig, job: Job | None) -> list[Warned]:
    """Without a job those that the configuration alone gives."""
    return [*_of_config(config), *(_of_job(job) if job else ())]


def _of_config(config: RunConfig) -> Iterator[Warned]:
    if not (config.exclude_first or config.exclude_special_tokens or config.exclude_tokens):
        yield Warned(
            "bos_not_excluded",
            "warning",
            "The first position of a sequence counts: its activations are a hundred times as large in most models, and "
            "rule the loss.",
            "config.exclude_first",
            [Fix("Leave it out", {"config.exclude_first": 1})],
        )
    if config.max_tokens is None and config.max_examples is None:
        yield Warned(
            "length_unknown",
            "info",
            "The run takes the whole dataset, so its duration is not known before that is opened.",
            "config.max_tokens",
        )


def _of_job(job: Job) -> Iterator[Warned]:
    yield from _of_learning_rate(job)
    yield from _of_auxk(job)
    yield from _of_length(job)


def _of_learning_rate(job: Job) -> Iterator[Warned]:
    config = job.config
    usual = default_lr(config.optimizer, job.coders[0].num_latents)
    if config.lr is not None and not usual / _UNUSUAL <= config.lr <= usual * _UNUSUAL:
        size = "large" if config.lr > usual else "small"
        yield Warned(
            "lr_unusual",
            "warning",
            f"A learning rate of {config.lr:g} is {size} for {config.optimizer} and "
            f"{job.coders[0].num_latents:,} latents: {usual:.2g} is usual.",
            "config.lr",
            [Fix("Use the usual one", {"config.lr": None})],
        )


def _of_auxk(job: Job) -> Iterator[Warned]:
    config = job.config
    widest = max(coder.num_latents for coder in job.coders)
    if widest >= WIDE_LATENTS and not config.auxk_alpha and config.loss_fn == "fvu":
        yield Warned(
            "no_auxk",
            "warning",
            f"Of {widest:,} latents many will die: nothing brings them back without AuxK.",
            "config.auxk_alpha",
            [Fix("Use AuxK with 1/32", {"config.auxk_alpha": _AUXK_ALPHA})],
        )
    if config.auxk_alpha and job.num_tokens is not None and config.dead_feature_threshold >= job.num_tokens:
        threshold = max(1, job.num_tokens // 20)
        yield Warned(
            "auxk_never",
            "warning",
            f"No latent can count as dead: that takes {config.dead_feature_threshold:,} tokens, and the run has "
            f"{job.num_tokens:,}. AuxK does nothing.",
            "config.dead_feature_threshold",
            [Fix(f"Count after {threshold:,} tokens", {"config.dead_feature_threshold": threshold})],
        )


def _of_length(job: Job) -> Iterator[Warned]:
    config, num_steps = job.config, job.num_steps
    if num_steps is None:
        return
    if not num_steps:
        yield Warned(
            "too_short",
            "error",
            f"One optimizer step takes {job.tokens_per_step:,} tokens, and the run has {job.num_tokens:,}.",
            "config.max_tokens",
            [Fix("Train for 100 steps", {"config.max_tokens": 100 * job.tokens_per_step})],
        )
    elif config.optimizer != "signum" and config.lr_warmup_steps >= num_steps:
        shorter = num_steps // 20
        words = f"Warm up for {shorter:,} steps" if shorter > 1 else "Do not warm up"
        yield Warned(
            "warmup_too_long",
            "warning",
            f"The learning rate never reaches its full value: it warms up for {config.lr_warmup_steps:,} steps, and "
            f"the run has {num_steps:,}.",
            "config.lr_warmup_steps",
            [Fix(words, {"config.lr_warmup_steps": shorter if shorter > 1 else 0})],
        )
