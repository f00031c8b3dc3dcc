"""sparsify's config.json as our configuration takes it. Torch-free: the launch form reads such files too."""

from collections.abc import Mapping
from typing import Any

_HAD_THEIR_EFFECT = ("layers", "layer_stride")
"""sparsify writes its hookpoints down resolved, beside what they were resolved from."""


def settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without what has had its effect, if they are sparsify's, which alone names a token; else as they are."""
    if "hf_token" not in values:
        return dict(values)
    left_out = {*(_HAD_THEIR_EFFECT if values.get("hookpoints") else ()), *([] if values["hf_token"] else ["hf_token"])}
    kept = {name: value for name, value in values.items() if name not in left_out}
    return {**kept, "lr": values.get("lr") or None}  # sparsify takes its default for 0.0
