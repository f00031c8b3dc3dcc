"""What runs need and how fast they are, against what was measured (benchmarks/results/h100-2026-11-26.md)."""

from dataclasses import replace
from typing import Any

import pytest
from planned import H100, TWO_CORES, job_of

from server.planning import (
    Device,
    Job,
    checkpoint_bytes,
    duration,
    kept_bytes,
    memory_needs,
    step_times,
    tokens_per_s,
)
from server.planning.memory import allocated_bytes

GIB = 2**30
MLP: dict[str, Any] = {"hookpoints": ["layers.15.mlp"]}
MEASURED: list[tuple[str, dict[str, Any], float, float]] = [
    ("W1", {}, 3.2, 2_125_679),
    ("W1", {"optimizer": "adam"}, 3.3, 2_161_851),
    ("W1", {"optimizer": "muon"}, 3.2, 2_118_639),
    ("W1", MLP | {"sae": {"transcode": True}}, 3.3, 2_167_921),
    ("W1", MLP | {"sae": {"transcode": True, "skip_connection": True}}, 3.6, 2_000_441),
    ("W1", {"sae": {"activation": "groupmax"}}, 3.2, 2_155_764),
    ("W1", {"sae": {"activation": "batchtopk"}}, 3.3, 2_087_559),
    ("W1", {"sae": {"multi_topk": True}}, 3.4, 1_916_505),
    ("W1", {"auxk_alpha": 1 / 32}, 4.0, 1_841_903),
    ("W1", {"loss_fn": "ce"}, 11.5, 514_469),
    ("W1", {"loss_fn": "kl"}, 11.5, 392_575),
    ("W2", {}, 6.4, 535_334),
    ("W3", {}, 12.5, 357_937),
    ("W3", {"sae": {"k": 192}}, 12.6, 287_097),
    ("W3", {"optimizer": "adam"}, 16.5, 311_892),
    ("W3", {"optimizer": "muon"}, 13.9, 87_736),
    ("W2", {"num_processes": 2}, 6.7, 967_630),
    ("W1", {"num_processes": 2}, 3.2, 4_212_478),
    ("W2", {"num_processes": 2, "distribute_modules": True}, 6.3, 1_032_158),
]


@pytest.mark.parametrize(("workload", "changes", "peak_gib", "rate"), MEASURED)
def test_memory_and_speed_are_near_what_an_h100_needed(
    workload: str, changes: dict[str, Any], peak_gib: float, rate: float
) -> None:
    job = job_of(workload, **changes)
    assert allocated_bytes(memory_needs(job)) / GIB == pytest.approx(peak_gib, rel=0.1)
    assert tokens_per_s(job) == pytest.approx(rate, rel=0.2)


def test_a_gpu_that_is_done_sooner_waits_for_what_launches_its_work() -> None:
    """Batches of 32 times 512 tokens took 15 to 29 ms on an H100, a fifth of which was arithmetic."""
    short = job_of("W1", ctx_len=512)
    assert tokens_per_s(short) == pytest.approx(800_000, rel=0.45)
    assert tokens_per_s(short) < tokens_per_s(job_of("W1")) / 1.8


def test_the_demo_is_about_as_fast_as_two_cores_were() -> None:
    """benchmarks/results/cpu-2026-11-26.md"""
    demo = job_of(
        "W1",
        TWO_CORES,
        hookpoints=["layers.5"],
        ctx_len=256,
        batch_size=8,
        optimizer="adam",
        sae={"expansion_factor": 8},
        exclude_first=1,
    )
    assert tokens_per_s(demo) == pytest.approx(2222, rel=0.2)
    times = step_times(demo)
    assert times["lm"] / sum(times.values()) == pytest.approx(0.86, abs=0.06)


def test_parts_of_a_step_and_of_the_memory_are_those_that_exist() -> None:
    alone, both = job_of("W1"), job_of("W1", num_processes=2)
    assert "communication" not in step_times(alone)
    assert step_times(both)["communication"] > 0
    names = [need.name for need in memory_needs(alone)]
    assert names == ["model", "coders", "optimizer", "gradients", "activations", "cuda"]
    on_cores = {need.name: need.num_bytes for need in memory_needs(job_of("W1", TWO_CORES))}
    assert on_cores["coders"] == 4 * sum(coder.num_parameters for coder in alone.coders)  # no copies in bfloat16


def needed(job: Job) -> float:
    return sum(need.num_bytes for need in memory_needs(job))


@pytest.mark.parametrize("workload", ["W1", "W2"])
def test_what_saves_memory_is_seen_to_save_it(workload: str) -> None:
    usual = needed(job_of(workload))
    assert needed(job_of(workload, micro_acc_steps=4)) < usual
    assert needed(job_of(workload, batch_size=1)) < usual
    assert needed(job_of(workload, optimizer="adam")) > usual
    assert needed(job_of(workload, optimizer="adam", adam_bits="8")) < needed(job_of(workload, optimizer="adam"))
    assert needed(job_of(workload, num_processes=1, sae={"expansion_factor": 64})) > usual


def test_gradients_are_only_left_out_of_large_coders_that_train_on_one_batch_at_once() -> None:
    def gradients(**changes: Any) -> float:
        return next(need.num_bytes for need in memory_needs(job_of("W3", **changes)) if need.name == "gradients")

    assert gradients() == 0
    assert gradients(micro_acc_steps=4) == gradients(optimizer="muon") == gradients(auxk_alpha=0.1) > 0
    assert gradients(num_processes=2) > 0


def test_a_run_takes_as_long_as_its_tokens_and_what_comes_between() -> None:
    job = job_of("W1", max_tokens=1_000_000_000, save_every=1000, eval_every=100)
    found = duration(job, 2e6, 250e6)
    assert found is not None
    assert found.training_s == pytest.approx(500, rel=0.01)
    assert found.saving_s > 0
    assert found.evaluation_s > 0
    rare = duration(job_of("W1", max_tokens=1_000_000_000, eval_tokens=0), 2e6, 250e6)
    assert rare is not None
    assert rare.evaluation_s == 0
    assert rare.total_s < found.total_s
    assert duration(job_of("W1"), 2e6, 250e6) is None  # the dataset's length decides


def test_a_run_that_goes_on_takes_what_is_left() -> None:
    config = {"max_tokens": 1_000_000_000, "save_every": 1000, "eval_every": 300}
    whole = job_of("W1", **config)
    assert (whole.num_steps, whole.num_saves, whole.num_times(300)) == (15258, 16, 50)
    later = replace(whole, first_step=15_000)
    assert (later.steps_left, later.num_saves, later.num_times(300)) == (258, 1, 0)
    assert replace(whole, first_step=14_990).num_saves == 2
    assert kept_bytes(later) == checkpoint_bytes(later)
    times = [duration(job, 2e6, 250e6) for job in (whole, later)]
    assert times[0] is not None
    assert times[1] is not None
    assert times[1].training_s == pytest.approx(times[0].training_s * 258 / 15258)
    assert times[1].saving_s == pytest.approx(times[0].saving_s / 16)
    assert duration(replace(whole, first_step=15_258), 2e6, 250e6) is None


def test_a_cache_of_activations_replaces_the_model_after_it_was_written() -> None:
    cached = job_of("W1", cache_activations="smol", max_tokens=10_000_000, num_epochs=2)
    assert step_times(cached)["lm"] == 0
    found = duration(cached, tokens_per_s(cached), 0)
    assert found is not None
    assert found.caching_s > 0


def test_an_unknown_gpu_is_planned_for_all_the_same() -> None:
    assert 0 < tokens_per_s(job_of("W1", Device("Some GPU", 24 * 10**9))) < tokens_per_s(job_of("W1", H100))
