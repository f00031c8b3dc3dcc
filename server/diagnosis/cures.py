"""Changes of the configuration that more than one rule proposes."""

from typing import Any

from server.diagnosis.evidence import Evidence

HIGHEST_LR = 0.1
"""The rates that follow from the number of latents are below it, for every optimizer and 64 latents or more."""
AUXK_ALPHA = 0.03125
"""1/32, as in Gao et al. 2024."""


def calmer(evidence: Evidence) -> dict[str, Any]:
    """A third of the learning rate, or the one that follows from the number of latents where it is absurd; and without
    the attention sink, whose activations are outliers in most models.
    """
    fix: dict[str, Any] = {} if evidence.option("exclude_first") else {"exclude_first": 1}
    if evidence.lr is None:
        return fix
    return {"lr": None if evidence.lr > HIGHEST_LR else _one_digit(evidence.lr / 3)} | fix


def outliers(evidence: Evidence) -> str:
    """A part of a sentence about the attention sink, where it is trained on."""
    return "" if evidence.option("exclude_first") else "; outliers at the first position make that likelier"


def reviving(evidence: Evidence) -> tuple[str, dict[str, Any]]:
    """Why latents are dead, and what brings them back."""
    if evidence.option("loss_fn") == "fvu" and not evidence.option("auxk_alpha"):
        return (
            "Nothing brings dead latents back: the AuxK loss is off. With weight 1/32 it lets them learn what the "
            "others leave over.",
            {"auxk_alpha": AUXK_ALPHA},
        )
    lower = {} if evidence.lr is None else {"lr": _one_digit(evidence.lr / 3)}
    return "Steps too large throw latents where no token reaches them; a lower learning rate loses fewer.", lower


def _one_digit(value: float) -> float:
    return float(f"{value:.1g}")
