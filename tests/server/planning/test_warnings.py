"""What is said before a run starts, and that the fixes mend it."""

from dataclasses import replace
from typing import Any

import pytest
from planned import H100, job_of

from server.planning import Device, Job, memory_needs, warnings_of, ways_to_fit
from sparsify_core.config import RunConfig, nest

QUIET: dict[str, Any] = {"exclude_first": 1, "max_tokens": 10**10, "auxk_alpha": 1 / 32}
"""Nothing is said about it."""


def codes(job: Job) -> list[str]:
    return [one.code for one in warnings_of(job.config, job)]


def mended(job: Job, values: dict[str, Any]) -> Job:
    """With the first fix."""
    changes = nest({name.removeprefix("config."): value for name, value in values.items()})
    return replace(job, config=RunConfig.model_validate(job.config.model_dump() | changes))


def test_a_sound_run_is_not_talked_about() -> None:
    assert codes(job_of("W1", **QUIET)) == []


@pytest.mark.parametrize(
    ("code", "severity", "changes"),
    [
        ("bos_not_excluded", "warning", {"exclude_first": 0}),
        ("no_auxk", "warning", {"auxk_alpha": 0, "sae": {"num_latents": 65_536}}),
        ("auxk_never", "warning", {"max_tokens": 5_000_000}),
        ("lr_unusual", "warning", {"lr": 1.0}),
        ("lr_unusual", "warning", {"lr": 1e-6}),
        ("warmup_too_long", "warning", {"optimizer": "adam", "lr_warmup_steps": 10**6}),
        ("too_short", "error", {"max_tokens": 1000, "auxk_alpha": 0}),
    ],
)
def test_what_is_unwise_is_said_with_a_fix_that_mends_it(code: str, severity: str, changes: dict[str, Any]) -> None:
    job = job_of("W1", **QUIET | changes)
    (found,) = warnings_of(job.config, job)
    assert (found.code, found.severity) == (code, severity)
    assert found.field.startswith("config.")
    assert codes(mended(job, dict(found.fixes[0].values))) == []


def test_a_run_without_a_known_length_is_told_so() -> None:
    assert codes(job_of("W1", **QUIET | {"max_tokens": None})) == ["length_unknown"]
    assert codes(job_of("W1", **QUIET | {"max_tokens": None, "max_examples": 10**7})) == []


def fits_in(gigabytes: float) -> Any:
    return lambda job: sum(need.num_bytes for need in memory_needs(job)) <= gigabytes * 10**9


def test_chunks_come_first_because_they_change_nothing_else() -> None:
    job = job_of("W1", Device("Some GPU", 3 * 10**9))
    first, second = ways_to_fit(job, fits_in(3))
    assert first.values == {"config.micro_acc_steps": 2}
    assert second.values == {"config.batch_size": 16, "config.grad_acc_steps": 2}
    for fix in (first, second):
        changed = mended(job, dict(fix.values))
        assert fits_in(3)(changed)
        assert changed.tokens_per_step == job.tokens_per_step


def test_what_fits_no_way_gets_no_fix() -> None:
    assert ways_to_fit(job_of("W3", H100), fits_in(5)) == []
    eight = ways_to_fit(job_of("W3", optimizer="adam"), fits_in(13.5))
    assert {"config.adam_bits": "8"} in [fix.values for fix in eight]
