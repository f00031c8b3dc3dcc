"""The columns of the list of runs: any field of a run, its configuration, or its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.db.tables.values import METRIC_PREFIX
from server.numbers import metric, metric_form
from server.pages.formatting import basename, plain
from server.pages.views import RunView
from server.services.run_fields import RunField, all_fields
from server.services.run_values import value_of
from sparsify_core.metrics import METRICS

DEFAULT = "fvu,eval_fvu,dead_frac,tokens_per_s"
_PATHS = ("model", "dataset")


@dataclass(frozen=True)
class Column:
    """A column as the template draws it."""

    field: RunField

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def metric(self) -> str:
        """Name of its metric in the registry; empty for other columns."""
        return self.field.key.removeprefix(METRIC_PREFIX) if self.field.key.startswith(METRIC_PREFIX) else ""

    @property
    def descending_first(self) -> bool:
        """Whether one wants to see the largest values first."""
        return self.field.is_number and not (self.metric and METRICS[self.metric].better == "lower")

    def text(self, view: RunView) -> str:
        """A run's value as it reads in the table."""
        value = value_of(self.field, view.run, view.means)
        if self.metric:
            return metric(value, metric_form(self.metric, self.field.unit))
        return basename(str(value)) if value and self.name in _PATHS else plain(value)

    def time(self, view: RunView) -> float | None:
        """A moment, which the page shows as its distance from now."""
        return value_of(self.field, view.run, view.means) if self.field.kind == "time" else None


def groups(chosen: Sequence[RunField]) -> list[tuple[str, list[tuple[RunField, bool]]]]:
    """`[(group, [(field, is chosen)])]`: all there are."""
    found: dict[str, list[tuple[RunField, bool]]] = {}
    for field in all_fields():
        found.setdefault(field.group, []).append((field, field in chosen))
    return list(found.items())
