"""The registry of every number the product shows: name, unit, meaning, direction, formula.

A series key is `name` for a run-wide metric (`lr`) and `name/coder` for one of a sparse coder (`fvu/layers.5`), as
upstream's logging keys are. Logging, chart axes, tooltips, docs and the model card derive from this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric. `per_coder` metrics have one series per sparse coder; `better` is the good direction, if any;
    `downstream` ones are about the model's predictions, held-out ones otherwise about the reconstruction.
    """

    name: str
    label: str
    unit: str
    help: str
    formula: str
    better: Literal["lower", "higher"] | None = None
    per_coder: bool = True
    chart: bool = True
    log_scale: bool = False
    downstream: bool = False


_DOWNSTREAM = "Excluded positions keep the model's own output; all predicted tokens count."

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "fvu",
            "FVU (training batch)",
            "",
            "Fraction of variance unexplained on the training batch.",
            "fvu.batch.v1",
            "lower",
            log_scale=True,
        ),
        Metric(
            "eval_fvu",
            "FVU (held out)",
            "",
            "Fraction of variance unexplained on the fixed held-out tokens, against their mean, in float64; excluded "
            "positions are left out.",
            "fvu.dataset.v1",
            "lower",
            log_scale=True,
        ),
        Metric(
            "eval_ev",
            "Explained variance (held out)",
            "",
            "1 - FVU on the held-out tokens; excluded positions are left out.",
            "ev.dataset.v1",
            "higher",
            chart=False,
        ),
        Metric(
            "dead_frac",
            "Dead latents",
            "fraction",
            "Share of latents that have not fired for dead_feature_threshold tokens.",
            "dead.v1",
            "lower",
        ),
        Metric("l0", "L0", "latents/token", "Mean number of latents with a positive activation per token.", "l0.v1"),
        Metric(
            "eval_l0",
            "L0 (held out)",
            "latents/token",
            "L0 on the held-out tokens; excluded positions are left out.",
            "l0.v1",
            chart=False,
        ),
        Metric(
            "eval_dead_frac",
            "Silent latents (held out)",
            "fraction",
            "Share of latents that never fire on the held-out tokens; excluded positions are left out.",
            "silent.v1",
            "lower",
            chart=False,
        ),
        Metric(
            "eval_dense_frac",
            "Activations of dense latents",
            "fraction",
            "Share of the activations that fall on latents which fire on more than a tenth of the held-out tokens and "
            "ten times as often as the mean one; excluded positions are left out.",
            "dense.10pct.v1",
            "lower",
            chart=False,
        ),
        Metric(
            "eval_duplicate_frac",
            "Duplicate latents",
            "fraction",
            "Share of latents whose decoder row has a cosine above 0.9 with another one's; of more than 1,024 latents, "
            "as many are looked at.",
            "duplicates.cos90.v1",
            "lower",
            chart=False,
        ),
        Metric(
            "eval_delta_ce",
            "Loss increase",
            "nats/token",
            "Next-token cross-entropy with this coder's reconstruction spliced in, minus that of the clean model. "
            f"{_DOWNSTREAM}",
            "delta_ce.v1",
            "lower",
            downstream=True,
        ),
        Metric(
            "eval_ce_recovered",
            "Loss recovered",
            "",
            "(CE of zeros - CE of the reconstruction) / (CE of zeros - clean CE), each spliced in: 1 is perfect. "
            f"{_DOWNSTREAM}",
            "ce_recovered.zero.v1",
            "higher",
            downstream=True,
        ),
        Metric(
            "eval_ce_recovered_mean",
            "Loss recovered (mean)",
            "",
            f"Loss recovered, with the mean of the counted held-out outputs in the place of zeros. {_DOWNSTREAM}",
            "ce_recovered.mean.v1",
            "higher",
            chart=False,
            downstream=True,
        ),
        Metric(
            "eval_kl",
            "KL divergence (held out)",
            "nats/token",
            "KL divergence of the predictions with this coder's reconstruction spliced in from those of the clean "
            f"model. {_DOWNSTREAM}",
            "kl.v1",
            "lower",
            downstream=True,
        ),
        Metric(
            "eval_kl_score",
            "KL score",
            "",
            f"(KL of zeros - KL of the reconstruction) / KL of zeros, each spliced in: 1 is perfect. {_DOWNSTREAM}",
            "kl_score.zero.v1",
            "higher",
            chart=False,
            downstream=True,
        ),
        Metric(
            "eval_kl_score_mean",
            "KL score (mean)",
            "",
            f"KL score, with the mean of the counted held-out outputs in the place of zeros. {_DOWNSTREAM}",
            "kl_score.mean.v1",
            "higher",
            chart=False,
            downstream=True,
        ),
        Metric(
            "auxk",
            "AuxK loss",
            "",
            "Dead-latent auxiliary loss (Gao et al. 2024, appendix A.2), relative to the variance.",
            "auxk.v1",
            "lower",
        ),
        Metric(
            "multi_topk_fvu",
            "FVU at 4k",
            "",
            "Training FVU of the second selection of 4k latents (Multi-TopK).",
            "fvu.batch.v1",
            "lower",
        ),
        Metric(
            "ce_loss",
            "Cross-entropy",
            "nats/token",
            "Next-token loss of the model with the reconstructions spliced in.",
            "ce.v1",
            "lower",
            per_coder=False,
        ),
        Metric(
            "kl_loss",
            "KL divergence",
            "nats/token",
            "KL divergence of the spliced model's predictions from the clean model's.",
            "kl.v1",
            "lower",
            per_coder=False,
        ),
        Metric("lr", "Learning rate", "", "Learning rate of the first optimizer.", "lr.v1", per_coder=False),
        Metric("k", "k", "latents", "Active latents per token at this step (k decay).", "k.v1", per_coder=False),
        Metric(
            "tokens_per_s",
            "Throughput",
            "tokens/s",
            "Tokens of the language model per second over the last ten seconds, all processes; evaluating and saving "
            "do not count.",
            "tps.v2",
            "higher",
            per_coder=False,
        ),
        Metric(
            "gpu_memory",
            "Peak GPU memory",
            "bytes",
            "The most that the first process has had allocated on its GPU so far.",
            "gpu_memory.peak.v1",
            "lower",
            per_coder=False,
        ),
        Metric(
            "tokens",
            "Tokens",
            "tokens",
            "Tokens seen so far, all processes.",
            "tokens.v1",
            per_coder=False,
            chart=False,
        ),
    )
}


def series_key(name: str, coder: str | None = None) -> str:
    """Key of a series, e.g. `fvu/layers.5`. Raises KeyError for a metric that the registry does not know."""
    metric = METRICS[name]
    return f"{name}/{coder}" if metric.per_coder and coder is not None else name


def split_key(key: str) -> tuple[str, str]:
    """`fvu/layers.5` -> (`fvu`, `layers.5`); `lr` -> (`lr`, ``)."""
    name, _, coder = key.partition("/")
    return name, coder


def mean_over_coders(latest: Mapping[str, float | str]) -> dict[str, float]:
    """The mean of every metric over the coders, from its newest value by series key; `nan` and `inf` may be strings."""
    values: dict[str, list[float]] = {}
    for key, value in latest.items():
        values.setdefault(split_key(key)[0], []).append(float(value))
    return {name: sum(each) / len(each) for name, each in values.items()}
