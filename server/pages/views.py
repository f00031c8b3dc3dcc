"""What templates need to know of a run, worked out from its row."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from server.db.tables import ACTIVE, TERMINAL, AttemptNode, Intent, Run, RunState
from server.numbers import metric, metric_form, number_of, plural
from server.pages.actions import Action, legal_actions
from server.pages.formatting import plain, sentence
from server.scheduling import remaining_s
from server.services.run_values import configured
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.config.base import Group
from sparsify_core.metrics import METRICS, mean_over_coders, split_key

TILES = ("eval_fvu", "fvu", "dead_frac", "l0", "lr", "tokens_per_s")
"""Metrics that stand as tiles on a run's page."""

MAIN_CHARTS: tuple[tuple[str, ...], ...] = (("fvu", "eval_fvu"), ("dead_frac",), ("l0",), ("lr",), ("tokens_per_s",))
"""Charts that every run has, by metrics; every other metric of the registry gets one of its own when it has points."""


STOPPING = {
    Intent.RUN: "Saving a checkpoint, then it queues again",
    Intent.PAUSE: "Saving a checkpoint, then it pauses",
    Intent.CANCEL: "Ending after the current step",
}
"""What a stopping run is on its way to."""


@dataclass(frozen=True)
class Tile:
    """The newest value of one metric, over all coders."""

    label: str
    help: str
    formula: str
    text: str
    unit: str
    note: str = ""


@dataclass(frozen=True)
class ChartSpec:
    """One chart: which metrics it draws and how its numbers are written.

    `kinds` says of each metric what the title leaves open.
    """

    id: str
    title: str
    help: str
    metrics: tuple[str, ...]
    labels: dict[str, str]
    kinds: dict[str, str]
    form: str
    is_log: bool
    is_main: bool


@dataclass(frozen=True)
class RunView:
    """A run and what its row says in words."""

    run: Run
    spark: str = ""

    @property
    def config(self) -> dict[str, Any]:
        return self.run.config

    @property
    def hookpoints(self) -> str:
        if self.config.get("hookpoints"):
            return " ".join(self.config["hookpoints"])
        layers = self.config.get("layers") or []
        return "layers " + " ".join(str(n) for n in layers) if layers else "all layers"

    @property
    def shape(self) -> str:
        """`k 32 · ×8` or `k 32 · 4,608 latents`."""
        sae = self.config.get("sae", {})
        latents = sae.get("num_latents")
        width = plural(latents, "latent") if latents else f"\u00d7{sae.get('expansion_factor', 32)}"
        return f"k {sae.get('k', 32)} \u00b7 {width}" + (" \u00b7 transcoder" if sae.get("transcode") else "")

    @property
    def is_active(self) -> bool:
        return self.run.state in ACTIVE

    @property
    def is_terminal(self) -> bool:
        return self.run.state in TERMINAL

    @property
    def actions(self) -> dict[str, Action]:
        return legal_actions(self.run)

    @property
    def doing(self) -> str:
        """What an active run does now, in words."""
        if self.run.state == RunState.STOPPING:
            return STOPPING[Intent(self.run.intent)]
        return sentence(self.run.phase or self.run.state)

    @property
    def fraction(self) -> float:
        if self.run.state == RunState.COMPLETED:
            return 1.0
        return min(1.0, self.run.step / self.run.total_steps) if self.run.total_steps else 0.0

    @property
    def elapsed_s(self) -> float | None:
        """Seconds that the run has been training, or took; None while it waits or is paused."""
        if self.run.started_at is None or not (self.is_active or self.run.finished_at):
            return None
        return (self.run.finished_at or time.time()) - self.run.started_at

    @property
    def eta_s(self) -> float | None:
        """Seconds that the remaining steps take at the newest throughput."""
        if self.run.state not in (RunState.STARTING, RunState.RUNNING):
            return None
        return remaining_s(
            step=self.run.step,
            total_steps=self.run.total_steps,
            tokens_per_step=self.run.tokens_per_step,
            tokens_per_s=self.mean("tokens_per_s"),
        )

    @property
    def tokens(self) -> int:
        return self.run.step * self.run.tokens_per_step

    def values(self, name: str) -> list[float]:
        """Newest values of a metric, one per coder."""
        numbers = (number_of(value) for key, value in self.run.latest.items() if split_key(key)[0] == name)
        return [number for number in numbers if number is not None]

    @cached_property
    def means(self) -> dict[str, float]:
        """The newest value of every metric, over the coders."""
        return mean_over_coders(self.run.latest)

    def mean(self, name: str) -> float | None:
        return self.means.get(name)

    @property
    def tiles(self) -> list[Tile]:
        return [self._tile(name) for name in TILES]

    def _tile(self, name: str) -> Tile:
        known = METRICS[name]
        form = metric_form(name, known.unit)
        values = self.values(name)
        unit = "" if form == "percent" else known.unit
        note = f"mean of {len(values)} coders" if len(values) > 1 else ""
        return Tile(known.label, known.help, known.formula, metric(self.mean(name), form), unit, note)


def places(nodes: Sequence[AttemptNode]) -> str:
    """Where an attempt trains: `lab-2, GPU 0, 1` or `laptop, CPU`."""
    return " \u00b7 ".join(f"{node.host}, {_devices(node)}" for node in nodes)


def _devices(node: AttemptNode) -> str:
    return "GPU " + ", ".join(str(index) for index in node.devices) if node.devices else "CPU"


def chart_specs() -> list[ChartSpec]:
    """All charts of a run's page, from the metric registry."""
    named = {name for group in MAIN_CHARTS for name in group}
    others = tuple((name,) for name, known in METRICS.items() if known.chart and name not in named)
    return [_chart(group, is_main=group in MAIN_CHARTS) for group in (*MAIN_CHARTS, *others)]


def _chart(names: tuple[str, ...], *, is_main: bool) -> ChartSpec:
    first = METRICS[names[0]]
    title = first.label if len(names) == 1 else "FVU"
    form = metric_form(first.name, first.unit)
    unit = "" if form in ("percent", "bytes") else first.unit
    return ChartSpec(
        id=f"chart-{first.name}",
        title=title + (f", {unit}" if unit else ""),
        help=" ".join(METRICS[name].help for name in names),
        metrics=names,
        labels={name: METRICS[name].label for name in names},
        kinds={name: _beyond(title, METRICS[name].label) for name in names},
        form=form,
        is_log=first.log_scale,
        is_main=is_main,
    )


def _beyond(title: str, label: str) -> str:
    """What a label adds to its chart's title: `Training batch` for `FVU (training batch)` under `FVU`."""
    return sentence(label.removeprefix(title).strip(" ()"))


def config_groups(config: dict[str, Any]) -> list[tuple[str, list[tuple[str, str, bool, str]]]]:
    """`(group, [(name, value, differs from default, help)])` of a stored configuration."""
    groups: dict[str, list[tuple[str, str, bool, str]]] = {title: [] for title in get_args(Group)}
    for spec in iter_fields(RunConfig):
        node = configured(config, spec.name, spec.default)
        groups[spec.group].append((spec.name, plain(node), node != spec.default, spec.help))
    return list(groups.items())
