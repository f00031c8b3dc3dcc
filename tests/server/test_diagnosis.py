"""Every rule of a run's health: series that trip it, and series that must not."""

import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from rows import add_attempt, add_point, add_run
from server.db.tables import Attempt, MetricPoint
from server.diagnosis import CHECKS, Evidence, Finding, Line, State, diagnose
from sparsify_core.config import RunConfig, iter_fields

STEPS = range(1, 401)
Course = Callable[[int], float]


def line(course: Course, steps: range = STEPS, seconds: Course = lambda step: float(step)) -> Line:
    return Line(list(steps), [course(step) for step in steps], [seconds(step) for step in steps])


def noisy(step: int) -> float:
    return 1 + 0.08 * math.sin(12.9898 * step)


def learning(step: int) -> float:
    """A healthy FVU."""
    return (0.2 + 0.8 * math.exp(-step / 40)) * noisy(step)


def evidence(series: dict[str, Line] | None = None, latest: dict[str, float] | None = None, **config: Any) -> Evidence:
    """Of a healthy run, but for what is given."""
    healthy = {
        "fvu/layers.5": line(learning),
        "dead_frac/layers.5": line(lambda step: 0.01),
        "lr": line(lambda step: 0.005 * min(1, step / 100)),
        "tokens_per_s": line(lambda step: 9000.0),
    }
    values = {"eval_l0/layers.5": 31.0, "eval_dead_frac/layers.5": 0.2, "eval_duplicate_frac/layers.5": 0.0}
    merged = healthy | (series or {})
    newest = {key: one.values[-1] for key, one in merged.items()} | values | (latest or {})
    reason = config.pop("reason_code", "")
    return Evidence(config, merged, newest, reason_code=reason, step=STEPS[-1])


def findings(found: Evidence) -> dict[str, Finding]:
    return {result.finding.code: result.finding for result in diagnose(found) if result.finding is not None}


def only(found: Evidence) -> Finding:
    (finding,) = findings(found).values()
    return finding


TRIPPED: dict[str, tuple[Evidence, str, str, dict[str, Any]]] = {
    "the run failed because its loss was no number": (
        evidence(reason_code="non_finite_loss", lr=3e-3),
        "non_finite",
        "bad",
        {"lr": 1e-3, "exclude_first": 1},
    ),
    "an infinite point, with an absurd rate": (
        evidence({"fvu/layers.5": line(lambda s: math.inf if s == 300 else learning(s))}, lr=50.0, exclude_first=1),
        "non_finite",
        "bad",
        {"lr": None},
    ),
    "a spike late in the run": (
        evidence({"fvu/layers.5": line(lambda s: 0.9 if s == 350 else learning(s))}),
        "loss_spike",
        "warn",
        {"lr": 0.002, "exclude_first": 1},
    ),
    "a plateau that explains a little": (
        evidence({"fvu/layers.5": line(lambda s: (0.7 + 0.3 * math.exp(-s / 20)) * noisy(s))}),
        "fvu_stuck",
        "warn",
        {"sae.k": 64},
    ),
    "a rate by hand that teaches nothing": (
        evidence({"fvu/layers.5": line(lambda s: 1.01 * noisy(s))}, lr=1e-9),
        "fvu_stuck",
        "bad",
        {"lr": None},
    ),
    "the derived rate teaches nothing": (
        evidence({"fvu/layers.5": line(lambda s: 1.2 * noisy(s))}, exclude_first=1),
        "fvu_stuck",
        "bad",
        {"lr": 0.002},
    ),
    "a rate that is far too low, from a start that is not bad": (
        evidence({"fvu/layers.5": line(lambda s: 0.5 * noisy(s))}, lr=1e-9, optimizer="adam", lr_warmup_steps=100),
        "fvu_stuck",
        "bad",
        {"lr": None},
    ),
    "an FVU that comes down from the sky": (
        evidence({"fvu/layers.5": line(lambda s: 1e9 / s)}, lr=50.0, exclude_first=1),
        "fvu_stuck",
        "bad",
        {"lr": None},
    ),
    "dead latents that rise": (
        evidence({"dead_frac/layers.5": line(lambda s: 0.2 * s / 400)}),
        "dead_latents",
        "warn",
        {"auxk_alpha": 0.03125},
    ),
    "most latents are dead, AuxK or not": (
        evidence({"dead_frac/layers.5": line(lambda s: 0.7)}, auxk_alpha=0.03125, lr=0.03),
        "dead_latents",
        "bad",
        {"lr": 0.01},
    ),
    "a few latents take all": (
        evidence(latest={"eval_dense_frac/layers.5": 0.8}),
        "dense_latents",
        "warn",
        {"exclude_first": 1},
    ),
    "a few latents take all, without the sink": (
        evidence(latest={"eval_dense_frac/layers.5": 0.8}, exclude_first=1),
        "dense_latents",
        "warn",
        {"sae.k": 16},
    ),
    "nearly all latents are silent": (
        evidence(latest={"eval_dead_frac/layers.5": 0.95}),
        "silent_latents",
        "bad",
        {"auxk_alpha": 0.03125},
    ),
    "half of k is not used": (evidence(latest={"eval_l0/layers.5": 9.3}), "unused_k", "warn", {"sae.k": 16}),
    "a threshold that lets too many pass": (
        evidence(latest={"eval_l0/layers.5": 64.0}),
        "over_k",
        "warn",
        {"batch_size": 64},
    ),
    "duplicates": (
        evidence(latest={"eval_duplicate_frac/layers.5": 0.08}),
        "decoder_duplicates",
        "warn",
        {"sae.expansion_factor": 16},
    ),
    "many duplicates of a given number of latents": (
        evidence(latest={"eval_duplicate_frac/layers.5": 0.5}, sae={"num_latents": 4096}),
        "decoder_duplicates",
        "bad",
        {"sae.num_latents": 2048},
    ),
    "steps that take twice as long at the end": (
        evidence({"tokens_per_s": line(lambda s: 9000.0, seconds=lambda s: s + max(0, s - 350))}),
        "throughput_fallen",
        "warn",
        {},
    ),
}


@pytest.mark.parametrize("name", TRIPPED)
def test_a_rule_finds_what_is_wrong_and_nothing_else(name: str) -> None:
    found, code, severity, fix = TRIPPED[name]
    finding = only(found)
    assert (finding.code, finding.severity, finding.fix) == (code, severity, fix)
    assert not finding.title.endswith(".")
    assert finding.cause.endswith(".")


HEALTHY: dict[str, Evidence] = {
    "a run that learns": evidence(),
    "spikes while it warms up": evidence({"fvu/layers.5": line(lambda s: 5.0 if s in (3, 40) else learning(s))}),
    "noise between batches": evidence({"fvu/layers.5": line(lambda s: 0.25 * (1 + 0.3 * math.sin(78.233 * s)))}),
    "a plateau where coders end": evidence({"fvu/layers.5": line(lambda s: 0.25 * noisy(s))}),
    "a transcoder of an MLP": evidence({"fvu/layers.5": line(lambda s: (0.5 + 0.5 * math.exp(-s / 30)) * noisy(s))}),
    "a fine-tuned coder that was good": evidence({"fvu/layers.5": line(lambda s: 0.5 * noisy(s))}, finetune="a/b"),
    "still warming up": evidence({"fvu/layers.5": line(lambda s: 1.0)}, optimizer="adam", lr_warmup_steps=1000),
    "high, but falling": evidence({"fvu/layers.5": line(lambda s: (1 - 0.3 * s / 400) * noisy(s))}),
    "too young to be stuck": evidence({"fvu/layers.5": line(lambda s: 1.0, range(1, 15))}),
    "dead latents that AuxK brings back": evidence({"dead_frac/layers.5": line(lambda s: 0.4 * math.exp(-s / 200))}),
    "a slow start": evidence({"tokens_per_s": line(lambda s: 9000.0, seconds=lambda s: 3.0 * min(s, 60) + s)}),
    "a pause of an hour": evidence({"tokens_per_s": line(lambda s: 9000.0, seconds=lambda s: s + 3600 * (s > 390))}),
    "an evaluation every tenth step": evidence(
        {"tokens_per_s": line(lambda s: 9.0, seconds=lambda s: s + 9 * (s // 10))}
    ),
    "rare latents of a wide coder": evidence(latest={"eval_dead_frac/layers.5": 0.7}),
    "silent on a few held-out tokens": evidence(latest={"eval_dead_frac/layers.5": 0.95}, eval_tokens=512),
    "some dense latents": evidence(latest={"eval_dense_frac/layers.5": 0.25}),
    "a handful of duplicates": evidence(latest={"eval_duplicate_frac/layers.5": 0.01}),
    "k that decays": evidence(latest={"l0/layers.5": 300.0}),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_passes_every_check(name: str) -> None:
    assert findings(HEALTHY[name]) == {}


def test_a_finding_names_the_coders_that_it_is_about() -> None:
    falling, flat = line(learning), line(lambda s: 0.99 * noisy(s))
    one = evidence({"fvu/layers.3": falling, "fvu/layers.7": flat})
    assert "of layers.7 is" in only(one).title
    two = evidence({"fvu/layers.3": flat, "fvu/layers.7": flat})
    assert "of 2 of 3 coders" in only(two).title


def test_what_follows_from_a_lost_coder_has_no_cure_of_its_own() -> None:
    lost = {"fvu/layers.5": line(lambda s: 1.3 * noisy(s))}
    found = findings(evidence(lost, {"eval_duplicate_frac/layers.5": 0.4, "eval_dead_frac/layers.5": 1.0}))
    assert {code: bool(finding.fix) for code, finding in found.items()} == {
        "fvu_stuck": True,
        "silent_latents": False,
        "decoder_duplicates": False,
    }


def test_nothing_is_said_before_there_is_something_to_look_at() -> None:
    assert {result.state for result in diagnose(Evidence({}))} == {State.WAITING}
    assert len({check.code for check in CHECKS}) == len(CHECKS) == 7


def test_every_fix_is_a_configuration_that_can_be_launched() -> None:
    names = {spec.name for spec in iter_fields(RunConfig)}
    for found, _, _, fix in TRIPPED.values():
        assert set(fix) <= names
        flat = {name: value for name, value in fix.items() if "." not in name}
        sae = {name.partition(".")[2]: value for name, value in fix.items() if "." in name}
        RunConfig.model_validate({**found.config, **flat, "sae": {**found.config.get("sae", {}), **sae}})


def test_the_health_of_a_run_by_rest_and_on_its_page(api: TestClient, app: FastAPI) -> None:
    noise = random.Random(0)
    with app.state.db.write() as session:
        run = add_run(session)
        add_attempt(session, run, event_seq=300)
        for step in range(1, 201):
            add_point(session, run, step, 1.0 + noise.gauss(0, 0.01))
            add_point(session, run, step, 1e-3, key="lr")
        run.step, run.latest = 200, {"fvu/layers.5": 1.0, "lr": 1e-3, "eval_l0/layers.5": 31.0, "l0/layers.5": "nan"}
        session.add(run)
    checks = {check["code"]: check for check in api.get(f"/api/v1/runs/{run.id}/health").json()["checks"]}
    assert {code: check["state"] for code, check in checks.items()} == {
        "non_finite": "ok",
        "fvu_stuck": "bad",
        "loss_spike": "ok",
        "dead_latents": "waiting",
        "density": "ok",
        "decoder_duplicates": "waiting",
        "throughput": "waiting",
    }
    assert checks["fvu_stuck"]["finding"]["fix"] == {"lr": 0.0003, "exclude_first": 1}
    assert checks["density"]["finding"] is None
    assert api.get("/api/v1/runs/nobody/health").status_code == 404
    page = api.get(f"/runs/{run.id}/health").text
    assert "stuck at" in page
    assert f"/runs/new?from={run.id}&amp;config.lr=0.0003&amp;config.exclude_first=1" in page


def test_a_diagnosis_is_made_anew_when_points_come_and_not_before(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        run = add_run(session)
        attempt = add_attempt(session, run, event_seq=1)
        add_point(session, run, 1, 0.5)
        run.step, run.latest = 1, {"fvu/layers.5": 0.5}
        session.add(run)
    read: list[str] = []
    event.listen(app.state.db.engine, "before_cursor_execute", lambda *args: read.append(args[2]))

    def states() -> tuple[dict[str, str], bool]:
        read.clear()
        checks = api.get(f"/api/v1/runs/{run.id}/health").json()["checks"]
        return {check["code"]: check["state"] for check in checks}, any("metric" in statement for statement in read)

    first, has_read = states()
    assert has_read
    assert states() == (first, False)
    with app.state.db.write() as session:
        add_point(session, run, 2, math.nan)
        session.get_one(Attempt, (run.id, attempt.attempt)).event_seq = 2
    assert states() == (first | {"non_finite": "bad"}, True)


def test_a_slow_run_leads_to_its_machine_and_several_fixes_go_into_one_clone(api: TestClient, app: FastAPI) -> None:
    with app.state.db.write() as session:
        run = add_run(session)
        add_attempt(session, run, event_seq=300)
        for step in range(1, 201):
            ts = float(step if step < 180 else 180 + 10 * (step - 180))
            point = {"run_id": run.id, "attempt": 1, "seq": step, "step": step, "ts": ts}
            session.add(MetricPoint(**point, key="tokens_per_s", value=5.0))
            session.add(MetricPoint(**point, key="dead_frac/layers.5", value=0.7))
        run.step, run.latest = 200, {"tokens_per_s": 5.0, "dead_frac/layers.5": 0.7, "eval_dense_frac/layers.5": 0.8}
        run.finished_at = time.time() - 3 * 86_400
        session.add(run)
    page = api.get(f"/runs/{run.id}").text
    assert "Steps take 10.0 times as long" in page
    assert 'href="/workers/w?hours=168"' in page
    both = f"/runs/new?from={run.id}&amp;config.exclude_first=1&amp;config.auxk_alpha=0.03125"
    assert page.count(both) == 1
