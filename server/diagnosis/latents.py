"""Rules about the latents: dead ones, those that fire too often or hardly ever, and those that are there twice."""

from typing import Any

from server.diagnosis.cures import reviving
from server.diagnosis.evidence import Evidence, middle, named
from server.diagnosis.finding import Finding, Severity
from server.numbers import percent

MANY_DEAD = 0.1
"""With centring and AuxK small coders end below 2% dead; 10% to 20% still counts as usable in the field."""
MOST_DEAD = 0.5
"""Without AuxK wide coders lose up to 90%: more than half of their width is wasted."""
RISE = 0.02
"""By how much the share must have grown over the last quarter of the steps to be rising."""

DENSE = 0.5
"""Dense latents carry a tenth to a quarter of the activations of a good coder; more leaves too few for the others."""
SILENT = 0.9
"""Even of 131,072 latents more than a tenth fire somewhere in 16,384 tokens when k is 32."""
MIN_EVAL_TOKENS = 10_000
UNUSED_K = 0.5
"""TopK coders use nearly all of their k; the others were cut off by the ReLU."""
OVER_K = 1.5

SOME_DUPLICATES = 0.05
"""Random rows of width 768 never have a cosine above 0.9, and features that split do not come that close."""
MANY_DUPLICATES = 0.2


def dead_latents(evidence: Evidence) -> Finding | None:
    """Many latents are dead, and more become it; or most are."""
    bad = {}
    for coder, line in evidence.of("dead_frac").items():
        late, earlier = line.part(0.95, 1), line.part(0.7, 0.8)
        if not late:
            continue
        now = middle(late)
        is_rising = bool(earlier) and now - middle(earlier) > RISE
        if now > MOST_DEAD or (now > MANY_DEAD and is_rising):
            bad[coder] = now
    if not bad:
        return None
    worst = max(bad.values())
    which = named(list(bad), len(evidence.of("dead_frac")))
    severity = Severity.BAD if worst > MOST_DEAD else Severity.WARN
    cause, fix = reviving(evidence)
    return Finding("dead_latents", severity, f"{percent(worst)} of the latents{which} are dead", cause, fix)


def density(evidence: Evidence) -> Finding | None:
    """How often latents fire is out of range: a few fire all the time, nearly none fire, or k is not what is used."""
    if finding := _dense(evidence):
        return finding
    silent = evidence.newest("eval_dead_frac")
    worst = max(silent.values(), default=0.0)
    if worst == 1 or (worst > SILENT and evidence.option("eval_tokens") >= MIN_EVAL_TOKENS):
        cause, fix = _follows() if evidence.is_lost else reviving(evidence)
        title = f"{percent(worst)} of the latents never fire on held-out text"
        return Finding("silent_latents", Severity.BAD, title, cause, fix)
    return _unused_k(evidence)


def decoder_duplicates(evidence: Evidence) -> Finding | None:
    """Latents that write the same direction."""
    shares = evidence.newest("eval_duplicate_frac")
    bad = {coder: share for coder, share in shares.items() if share > SOME_DUPLICATES}
    if not bad:
        return None
    worst = max(bad.values())
    severity = Severity.BAD if worst > MANY_DUPLICATES else Severity.WARN
    title = f"{percent(worst)} of the latents{named(list(bad), len(shares))} are duplicates"
    cause, fix = _follows() if evidence.is_lost else _narrower(evidence)
    return Finding("decoder_duplicates", severity, title, cause, fix)


def _dense(evidence: Evidence) -> Finding | None:
    shares = evidence.newest("eval_dense_frac")
    bad = {coder: share for coder, share in shares.items() if share > DENSE}
    if not bad:
        return None
    return Finding(
        "dense_latents",
        Severity.WARN,
        f"Latents that fire all the time take {percent(max(bad.values()))} of k{named(list(bad), len(shares))}",
        "A few latents do the work of a bias and leave little of k to the others"
        + ("." if evidence.option("exclude_first") else "; outliers at the first position often are the reason."),
        {"sae.k": _rounded(evidence.option("sae.k") / 2)} if evidence.option("exclude_first") else {"exclude_first": 1},
    )


def _unused_k(evidence: Evidence) -> Finding | None:
    k = int(evidence.option("sae.k"))
    l0s = evidence.newest("eval_l0")
    if not l0s:
        return None
    low, high = min(l0s.values()), max(l0s.values())
    if low < UNUSED_K * k and k > 1:
        return Finding(
            "unused_k",
            Severity.WARN,
            f"Of k = {k} only {low:.1f} latents are positive per token",
            "The coder does not need that many, or a learning rate that is too high pushed its encoder below zero.",
            {"sae.k": _rounded(low)},
        )
    if high > OVER_K * k:
        return Finding(
            "over_k",
            Severity.WARN,
            f"{high:.1f} latents are active per token, k is {k}",
            "BatchTopK's threshold was measured on text unlike the held-out one: larger batches make it steadier.",
            {"batch_size": 2 * int(evidence.option("batch_size"))},
        )
    return None


def _follows() -> tuple[str, dict[str, Any]]:
    return "This follows from an FVU near or above 1: that one comes first.", {}


def _narrower(evidence: Evidence) -> tuple[str, dict[str, Any]]:
    num_latents, k = int(evidence.option("sae.num_latents")), int(evidence.option("sae.k"))
    factor = int(evidence.option("sae.expansion_factor"))
    fix: dict[str, Any] = {}
    if num_latents // 2 >= 4 * k:
        fix = {"sae.num_latents": num_latents // 2}
    elif not num_latents and factor > 1:
        fix = {"sae.expansion_factor": factor // 2}
    return (
        "More latents than the activations have features for, so that several learn the same direction: a narrower "
        "coder loses nothing.",
        fix,
    )


def _rounded(k: float) -> int:
    """The power of two that is nearest from above: it divides what k is made to divide."""
    return 1 << max(0, (max(1, round(k)) - 1).bit_length())
