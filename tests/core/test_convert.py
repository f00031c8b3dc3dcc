"""Runs of EleutherAI's own trainer go on here: upstream itself says what they held when they were saved."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oracle import Oracle
from runs import Trained, flags
from sparsify_core.cli import main
from sparsify_core.config import RunConfig
from sparsify_core.formats.sparsify import load_coder
from sparsify_core.rundir import RunDir
from sparsify_core.train.optim import CoderOptimizer
from sparsify_core.train.placement import CoderSpec
from sparsify_core.train.state import load_state
from sparsify_core.train.units import Unit, build_units

pytestmark = pytest.mark.integration

BASE = {"batch_size": 4, "ctx_len": 16, "max_examples": 80, "lr": 0.003, "lr_warmup_steps": 5}
CASES: dict[str, dict[str, Any]] = {
    "signum": {"hookpoints": ["layers.1.mlp", "layers.0"], "init_seeds": [0, 3]},
    "adam": {
        "optimizer": "adam",
        "hookpoints": ["layers.0.mlp"],
        "grad_acc_steps": 2,
        "save_every": 9,
        "dead_feature_threshold": 64,
        "sae": {"k": 4, "expansion_factor": 4, "transcode": True, "skip_connection": True},
    },
    "muon": {"optimizer": "muon", "layers": [1], "lr": 0.01},
}
NUM_STEPS = {"signum": 20, "adam": 8, "muon": 20}
"""80 sequences in batches of 4; the run with adam is left at a save in the middle, behind its eighth step."""

THEIRS = """
import json, sys, torch
from pathlib import Path
from datasets import load_from_disk
from safetensors.torch import save_file
from transformers import AutoModel
from sparsify import SparseCoderConfig, Trainer
from sparsify.__main__ import RunConfig

sys.modules["bitsandbytes"] = None  # upstream's adam is the 8-bit one where it finds that
root, model, dataset, base, cases = Path(sys.argv[1]), *sys.argv[2:4], *map(json.loads, sys.argv[4:6])


class Left(Exception):
    pass


class Watched(Trainer):
    def save(self):
        super().save()
        held = {}
        for name, sae in self.saes.items():
            for parameter, p in sae.named_parameters():
                held[f"weights/{name}/{parameter}"] = p.detach().clone()
                for optimizer in self.optimizers:
                    for key, value in optimizer.state[p].items() if p in optimizer.state else ():
                        held[f"optimizer/{name}/{parameter}/{key}"] = torch.as_tensor(value).clone()
        save_file(held, root / f"{self.cfg.run_name}.safetensors")
        raise Left


for name, values in cases.items():
    values = {**base, **values}
    sae = SparseCoderConfig(**values.pop("sae", {"k": 4, "expansion_factor": 4}))
    config = RunConfig(
        sae, model=model, dataset=dataset, run_name=name, save_dir=str(root),
        log_to_wandb=False, wandb_log_frequency=5, **values
    )
    lm = AutoModel.from_pretrained(model)
    data = load_from_disk(dataset).with_format("torch").select(range(config.max_examples))
    trainer = Watched(config, data, lm)
    try:
        trainer.fit()
    except Left:
        pass
    seen = {}
    point = lm.get_submodule(config.hookpoints[0])
    handle = point.register_forward_hook(lambda _, i, o: seen.update(i=i[0], o=o[0] if isinstance(o, tuple) else o))
    lm(data[:20]["input_ids"])
    x, y = seen["i" if sae.transcode else "o"].flatten(0, 1), seen["o"].flatten(0, 1)
    coder = next(iter(trainer.saes.values()))
    (root / f"{name}.json").write_text(json.dumps({"fvu": float(coder(x, y).fvu)}))
"""


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved dataset of 200 sequences of 16 ids, in which some follow others more often."""
    from datasets import Dataset

    generator = np.random.default_rng(0)
    start, stride = generator.integers(2, 66, (200, 1)), generator.integers(1, 4, (200, 1))
    path = tmp_path_factory.mktemp("data") / "ids"
    Dataset.from_dict({"input_ids": ((start + stride * np.arange(16)) % 64 + 2).tolist()}).save_to_disk(str(path))
    return path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, numbered: Path, oracle: Oracle) -> Path:
    """Folder with upstream's run of each case, and what it held: `<case>.safetensors` and `<case>.json`."""
    root = tmp_path_factory.mktemp("theirs")
    oracle.run(THEIRS, root, tiny_model, numbered, json.dumps(BASE), json.dumps(CASES))
    return root


def convert(theirs: Path, case: str, root: Path, *words: str, **changes: object) -> Trained:
    changes = {"max_examples": "none", "eval_tokens": 128, "device": "cpu", **changes}
    return Trained(main(["convert", str(theirs / case), str(root), *words, *flags(changes)]), RunDir(root))


def restored(run_dir: RunDir, step: int) -> tuple[list[Unit], CoderOptimizer]:
    """What the trainer holds behind the checkpoint."""
    config = RunConfig.model_validate_json(run_dir.config.read_text())
    specs = []
    for hookpoint in config.hookpoints:
        for seed in config.init_seeds:
            name = hookpoint if len(config.init_seeds) == 1 else f"{hookpoint}/seed{seed}"
            specs.append(CoderSpec(name, hookpoint, seed, 32, 32, 128))
    units = build_units(config, specs, torch.device("cpu"))
    optimizer = CoderOptimizer(config, {unit.name: unit.coder for unit in units}, num_steps=100)
    load_state(run_dir.checkpoint(step), units, optimizer, world_size=1)
    return units, optimizer


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_from_what_upstream_held(theirs: Path, tmp_path: Path, case: str) -> None:
    done = convert(theirs, case, tmp_path / "run")
    assert done.exit_code == 0
    assert [c.step for c in done.run_dir.published()] == [NUM_STEPS[case]]
    held = load_file(theirs / f"{case}.safetensors")
    counters = torch.load(theirs / case / "rank_0_state.pt", weights_only=True)["num_tokens_since_fired"]
    units, optimizer = restored(done.run_dir, NUM_STEPS[case])
    assert [unit.name for unit in units] == list(counters)
    for unit in units:
        assert torch.equal(unit.tokens_since_fired_M, counters[unit.name])
        for key, p in unit.coder.named_parameters():
            expected = held[f"weights/{unit.name}/{key}"]
            if key == "W_dec" and not unit.coder.is_transcoder:  # upstream scales the rows when it uses them next
                expected = expected / expected.norm(dim=1, keepdim=True)
            torch.testing.assert_close(p.detach(), expected, atol=1e-6, rtol=1e-6, msg=f"{unit.name} {key}")
    ours = optimizer.tensors()
    expected_state = {k.removeprefix("optimizer/"): v for k, v in held.items() if k.startswith("optimizer/")}
    if case == "muon":
        assert not ours
        return
    assert ours.keys() == expected_state.keys()
    for key, tensor in ours.items():
        assert torch.equal(tensor, expected_state[key]), key
    saved = torch.load(theirs / case / "optimizer_0.pt", weights_only=True)["param_groups"]
    for unit, group in zip(units, saved, strict=True):
        numbers = optimizer.scalars()[unit.name][0]
        assert numbers == {key: group[key] for key in numbers} if case == "signum" else {"lr": 0.003}


@pytest.mark.parametrize("case", ["signum", "adam"])
def test_coder_is_upstreams_to_the_bit(theirs: Path, tmp_path: Path, case: str) -> None:
    done = convert(theirs, case, tmp_path / "run")
    names = ["layers.0/seed3", "layers.1.mlp/seed0"] if case == "signum" else ["layers.0.mlp"]
    for name in names:
        ours, saved = load_coder(done.run_dir.checkpoint(NUM_STEPS[case]).coder(name).root), theirs / case / name
        weights = load_file(saved / "sae.safetensors")
        assert ours.state_dict().keys() == weights.keys()
        assert all(torch.equal(ours.state_dict()[key], weights[key]) for key in weights)
        assert ours.k == json.loads((saved / "cfg.json").read_text())["k"]


@pytest.mark.parametrize("case", CASES)
def test_error_goes_on_from_the_same_level(theirs: Path, tmp_path: Path, case: str) -> None:
    done = convert(theirs, case, tmp_path / "run", log_every=1)
    words = ["--config", str(done.run_dir.config), "--run_dir", str(done.run_dir.root), "--resume"]
    assert main(words) == 0
    name = {"signum": "layers.0/seed0", "adam": "layers.0.mlp", "muon": "layers.1"}[case]
    steps = [e for e in done.events() if e.type == "metrics" and f"fvu/{name}" in e.values]
    assert steps[0].step == NUM_STEPS[case] + 1
    level = json.loads((theirs / f"{case}.json").read_text())["fvu"]
    fvu = [step.values[f"fvu/{name}"] for step in steps]
    assert fvu[0] == pytest.approx(level, rel=0.25)
    assert len(fvu) >= 10
    assert sum(fvu[-3:]) / 3 < level


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change what a JSON file or a pickle of upstream says."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
    else:
        values = torch.load(path, weights_only=True)
        change(values)
        torch.save(values, path)


@pytest.fixture
def copy(theirs: Path, tmp_path: Path) -> Path:
    """A copy of upstream's runs, to be changed."""
    return shutil.copytree(theirs, tmp_path / "copy")


def test_state_of_several_processes(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under distribute_modules upstream saves all counters, and the optimizer of rank 0's coders only."""
    run = copy / "signum"
    counters = torch.load(run / "rank_0_state.pt", weights_only=True)["num_tokens_since_fired"]
    for rank in (0, 1):
        own = dict(list(counters.items())[2 * rank : 2 * rank + 2])
        torch.save({"num_tokens_since_fired": own, "best_loss": {}}, run / f"rank_{rank}_state.pt")
    edit(run / "optimizer_0.pt", lambda saved: saved.update(param_groups=saved["param_groups"][:2]))
    edit(run / "config.json", lambda values: values.update(distribute_modules=True))
    done = convert(copy, "signum", tmp_path / "run")
    assert "stored for layers.1.mlp/seed0, layers.1.mlp/seed3: it starts anew" in capsys.readouterr().out
    checkpoint = done.run_dir.checkpoint(20)
    assert json.loads(checkpoint.training_state.read_text())["world_size"] == 2
    tensors = load_file(checkpoint.training_tensors(0))
    for name, counts in counters.items():
        assert torch.equal(tensors[f"tokens_since_fired/{name}"], counts * 2)
        assert (f"optimizer/{name}/W_dec/z" in tensors) is (name in list(counters)[:2])


def test_replicas_count_all_tokens(theirs: Path, tmp_path: Path) -> None:
    one = convert(theirs, "signum", tmp_path / "one").run_dir.checkpoint(20)
    three = convert(theirs, "signum", tmp_path / "three", num_processes=3).run_dir.checkpoint(20)
    key = "tokens_since_fired/layers.0/seed0"
    counts = load_file(one.training_tensors(0))[key]
    assert int(counts.max()) > 0
    assert torch.equal(load_file(three.training_tensors(0))[key], 3 * counts)


@pytest.mark.parametrize(("size", "nested"), [(256, True), (2048, False)])
def test_averages_in_8_bits_are_widened(copy: Path, tmp_path: Path, size: int, nested: bool) -> None:
    """As bitsandbytes stores them: an index into a table of 256 values, times the largest value of the block."""
    expected: dict[str, torch.Tensor] = {}

    def narrow(saved: dict[str, Any]) -> None:
        names = [name for name, _ in load_coder(copy / "adam" / "layers.0.mlp").named_parameters()]
        for name, own in zip(names, saved["state"].values(), strict=True):
            inner: dict[str, Any] = {}
            for number, key in ((1, "exp_avg"), (2, "exp_avg_sq")):
                average = own.pop(key).flatten()
                if average.numel() < 4096:  # as they are
                    inner[f"state{number}"], wide = average, average
                else:
                    table = torch.linspace(-1, 1, 256)
                    absmax = torch.stack([block.abs().max() for block in average.split(size)])
                    steps = torch.cat([block / top for block, top in zip(average.split(size), absmax, strict=True)])
                    codes = (steps[:, None] - table).abs().argmin(1).to(torch.uint8)
                    inner |= {f"state{number}": codes, f"absmax{number}": absmax, f"qmap{number}": table}
                    wide = torch.stack([table[code] * absmax[i // size] for i, code in enumerate(codes.tolist())])
                    assert (wide - average).abs().max() <= absmax.max() / 250
                expected[f"layers.0.mlp/{name}/{key}"] = wide
            own["step"] = int(own["step"])
            own.update({"__bnb_optimizer_quant_state__": inner} if nested else inner)

    edit(copy / "adam" / "optimizer_0.pt", narrow)
    units, optimizer = restored(convert(copy, "adam", tmp_path / "run").run_dir, 8)
    tensors = optimizer.tensors()
    for key, p in units[0].coder.named_parameters():
        assert tensors[f"layers.0.mlp/{key}/step"] == 8
        assert tensors[f"layers.0.mlp/{key}/exp_avg"].shape == p.shape
    for key, wide in expected.items():
        assert torch.equal(tensors[key].flatten(), wide)


def remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def truncate(name: str) -> Callable[[Path], None]:
    return lambda run: os.truncate(run / name, 200)


def rewrite(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    return lambda run: edit(run / name, change)


class Harm:
    """What a pickle could do when it is trusted."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("harm",)


def plant(run: Path) -> None:
    (run / "rank_0_state.pt").write_bytes(pickle.dumps(Harm(), protocol=2))


@pytest.mark.parametrize(
    ("change", "changes", "sentence"),
    [
        (remove("state.pt"), {}, "is not a run of sparsify: it has no state.pt"),
        (remove("optimizer_0.pt"), {}, "is not a complete run of sparsify: it has no optimizer_0.pt"),
        (remove("rank_0_state.pt"), {}, "is not a complete run of sparsify: it has no rank_0_state.pt"),
        (remove("layers.0.mlp/sae.safetensors"), {}, "it has no sae.safetensors"),
        (truncate("optimizer_0.pt"), {}, "optimizer_0.pt cannot be read as a file of sparsify's"),
        (truncate("config.json"), {}, "config.json cannot be read as a file of sparsify's"),
        (plant, {}, "rank_0_state.pt cannot be read as a file of sparsify's"),
        (rewrite("rank_0_state.pt", lambda s: s.pop("num_tokens_since_fired")), {}, "rank_0_state.pt cannot be read"),
        (rewrite("optimizer_0.pt", lambda s: s["state"].pop(1)), {}, "optimizer_0.pt cannot be read"),
        (rewrite("optimizer_0.pt", lambda s: s["state"].clear()), {}, "has not made one optimizer step"),
        (rewrite("config.json", lambda v: v.pop("model")), {}, "names no model and dataset"),
        (None, {"optimizer": "signum"}, "the saved state is adam's, not signum's"),
        (None, {"expansion_factor": 8}, "expansion_factor is 4 in the coders to convert, not 8"),
        (None, {"hookpoints": ["layers.9"]}, "layers.9 is not a sparse coder"),
        (None, {"k_decay_steps": 100}, "saved while k was falling, at 4"),
        (None, {"num_processes": 0}, "num_processes is 0"),
        (None, {"attempt": 3}, "--attempt and --run_dir are flags of training"),
        (None, {"batch_size": 0}, "batch_size: input should be greater than or equal to 1, got 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_writes_nothing(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None] | None,
    changes: dict[str, object],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if change is not None:
        change(copy / "adam")
    done = convert(copy, "adam", tmp_path / "run", **changes)
    message = capsys.readouterr().err
    assert done.exit_code in (1, 2)
    assert sentence in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "harm").exists()


def test_target_of_k_that_upstream_forgot_can_be_given(copy: Path, tmp_path: Path) -> None:
    done = convert(copy, "adam", tmp_path / "run", k_decay_steps=100, k=2)
    assert load_coder(done.run_dir.checkpoint(8).coder("layers.0.mlp").root).k == 2


def test_run_is_not_overwritten(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(theirs, "adam", tmp_path / "run")
    assert convert(theirs, "adam", tmp_path / "run").exit_code == 2
    assert "already holds a run" in capsys.readouterr().err


def test_model_and_dataset_can_be_given(theirs: Path, tmp_path: Path) -> None:
    run_dir = convert(theirs, "adam", tmp_path / "run", "other/model", "other/dataset", lr=0.5).run_dir
    config = RunConfig.model_validate_json(run_dir.config.read_text())
    assert (config.model, config.dataset, config.lr) == ("other/model", "other/dataset", 0.5)
    assert (config.hookpoints, config.layers, config.log_to_wandb) == (["layers.0.mlp"], [], False)


def test_help_does_not_wait_for_torch() -> None:
    program = """
import sys
from sparsify_core.cli import main
try:
    main(["convert", "--help"])
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "UPSTREAM_RUN RUN_DIR" in done.stdout
