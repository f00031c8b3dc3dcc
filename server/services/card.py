"""The model card of a pushed checkpoint."""

import html
import json
import re
from typing import Any

import yaml

from server.numbers import named_metric
from sparsify_core.metrics import METRICS
from sparsify_core.paths import without_paths

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def model_card(
    *, repo_id: str, name: str, step: int, config: dict[str, Any], evaluation: dict[str, Any], coders: list[str]
) -> str:
    """README.md: front matter, what it is, the measured numbers with their formulas, how to load it."""
    known = without_paths(config)
    model = str(known.get("model", ""))
    front: dict[str, Any] = {"tags": ["sparse-autoencoder", "sparsify", "interpretability"]}
    if _HUB_ID.fullmatch(model):
        front["base_model"] = model
    if _HUB_ID.fullmatch(str(known.get("dataset", ""))):
        front["datasets"] = [known["dataset"]]
    kind = "transcoders" if known.get("sae", {}).get("transcode") else "autoencoders"
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {_plain(name)}",
        f"Sparse {kind} trained with Sparseboard on the activations of `{_code(model)}`, "
        f"text `{_code(known.get('dataset', ''))}`, checkpoint of step {step:,}.",
        _table(evaluation),
        "## Use\n\n```python\n# pip install eai-sparsify\nfrom sparsify import SparseCoder\n\n"
        f'coder = SparseCoder.load_from_hub("{repo_id}", hookpoint="{_code(coders[0]) if coders else ""}")\n```',
        "## Sparse coders\n\n" + "\n".join(f"- `{_code(coder)}`" for coder in coders),
        f"## Configuration\n\n```json\n{json.dumps(known, indent=2)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(evaluation: dict[str, Any]) -> str:
    """A row per sparse coder, a column per metric, and what each of the metrics means."""
    found = {name for values in evaluation.values() for name in values}
    names = [name for name in METRICS if name in found]
    if not names:
        return ""
    rows = [
        ["Sparse coder", *(METRICS[name].label for name in names)],
        ["---"] * (1 + len(names)),
        *(
            [f"`{_code(coder)}`", *(named_metric(name, values.get(name)) for name in names)]
            for coder, values in evaluation.items()
        ),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    meanings = "\n".join(
        f"- {METRICS[name].label}{f' ({METRICS[name].unit})' if METRICS[name].unit else ''}: "
        f"{_plain(METRICS[name].help)} `{METRICS[name].formula}`"
        for name in names
    )
    return f"## Evaluation\n\nOn held-out tokens; `eval.json` says which.\n\n{table}\n\n{meanings}"


def _plain(text: str) -> str:
    """Text that neither Markdown nor HTML takes for markup."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", html.escape(text.replace("\n", " "), quote=False))


def _code(text: Any) -> str:
    """Text inside backticks or a code block."""
    return re.sub(r"[`\n\"|]", "", str(text))
