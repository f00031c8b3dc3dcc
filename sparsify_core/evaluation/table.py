"""An evaluation as text, a row per coder."""

from sparsify_core.evaluation.result import Evaluation
from sparsify_core.metrics import METRICS

_PREFIX = "eval_"


def table(evaluation: Evaluation) -> str:
    """Aligned columns: names of metrics without their common prefix, units, numbers; `-` for what is undefined."""
    columns = evaluation.measured
    rows = [
        ["coder", *(name.removeprefix(_PREFIX) for name in columns)],
        ["", *(METRICS[name].unit for name in columns)],
    ]
    for coder, numbers in evaluation.values.items():
        rows.append([coder, *(f"{numbers[name]:.4g}" if name in numbers else "-" for name in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows if any(row)
    ]
    return "\n".join(lines)


def footer(evaluation: Evaluation) -> str:
    """What the numbers were measured on."""
    held_out = evaluation.held_out
    text = f"{evaluation.num_tokens:,} of {held_out.tokens.size:,} tokens counted"
    if any(METRICS[name].downstream for name in evaluation.measured):
        text += f", {held_out.num_next_tokens:,} predicted"
    return f"{text}; token sha256 {held_out.sha256}"
