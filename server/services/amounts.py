"""Numbers as people type and read them: `0.4`, `20M`, `40%`, `20,000,000`."""

import re
from decimal import Decimal

_AMOUNT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)([kMBT%]?)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
_POWER_OF_TEN = {"": 0, "k": 3, "M": 6, "B": 9, "T": 12, "%": -2}


def amount(text: str) -> float | None:
    """None for what is no number."""
    match = _AMOUNT.fullmatch(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    return float(Decimal(match[1]).scaleb(_POWER_OF_TEN[match[2]])) if match else None  # 70% is 0.7, not nearly so
