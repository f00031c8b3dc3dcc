"""Numbers as people type and read them: `0.4`, `20M`, `40%`, `20,000,000`."""

import re

_AMOUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)([kMBT%]?)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "%": 0.01}


def amount(text: str) -> float | None:
    """None for what is no number."""
    match = _AMOUNT.fullmatch(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    return float(match[1]) * _SCALE[match[2]] if match else None
