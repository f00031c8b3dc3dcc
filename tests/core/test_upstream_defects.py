"""EleutherAI/sparsify is known to be wrong in these places (eai-sparsify 1.3.3); what shows that we are not.

 1  AuxK and Multi-TopK send no gradient to the encoder
    test_losses::test_auxk_reaches_the_encoder
    test_losses::test_multi_topk_counts_the_skip_and_reaches_the_encoder
    test_upstream_defects::test_upstream_trains_no_encoder_by_auxk_and_multi_topk
 2  activations of float16 models overflow the denominator of FVU, and nothing is trained
    test_upstream_defects::test_float16_model_is_trained
    test_upstream_defects::test_upstream_does_not_train_on_a_float16_model
 3  muon applies updates to other tensors in replicas, and its state to other tensors on resume
    test_upstream_defects::test_muon_replicas_equal_one_process
    test_resume::test_resumed_run_is_bit_equal
 4  signum goes on from other weights on resume; a run saved in the middle replays a batch
    test_resume::test_resumed_run_is_bit_equal
 5  micro_acc_steps and the frequency of logging change gradients and the logged FVU
    test_options::test_micro_batches_change_nothing
    test_upstream_defects::test_logged_values_do_not_depend_on_how_often_they_are_logged
    test_sinks::test_wandb_gets_the_value_of_every_third_step
 6  multi_topk ignores the skip connection, and the 4k latents take the place of the k
    test_losses::test_multi_topk_counts_the_skip_and_reaches_the_encoder
    test_options::test_multi_topk_is_logged_and_better_than_k
    test_upstream_defects::test_upstream_answers_with_4k_latents
 7  the number of processes multiplies the threshold of dead latents
    test_processes::test_two_processes_equal_one_with_twice_the_batch
    test_distribute::test_owners_equal_one_process_with_the_whole_batch
 8  a transcoder trained on ce starts at the mean of the inputs, and its modules are replaced for good
    test_upstream_defects::test_end_to_end_transcoder_starts_at_the_mean_output
    test_end_to_end::test_model_is_untouched
 9  decoder rows are saved without unit norm (signum's average, where that is right, too: docs/decisions/0008)
    test_training::test_saved_decoder_rows_have_unit_norm
    test_training::test_signum_saves_its_average_and_trains_on_unit_rows
    test_upstream_defects::test_upstream_saves_rows_of_other_norms
10  several seeds break save_best, ce and kl, the counters on resume, and load_many
    test_upstream_defects::test_best_of_several_seeds_is_kept
    test_end_to_end::test_every_seed_has_its_own_forward
    test_upstream_defects::test_counters_of_several_seeds_are_resumed
    test_library::test_tree_is_read_as_a_whole
11  load_many finds nothing by pattern, and trips over best and hidden folders
    test_library::test_tree_is_read_as_a_whole
    test_library::test_doubled_names_below_best_are_read_once
    test_upstream_defects::test_upstream_finds_nothing_by_pattern
12  with distribute_modules the optimizers of all processes but one are lost
    test_distribute::test_two_processes_resume_bit_for_bit
    test_convert::test_state_of_several_processes
13  resume looks in checkpoints/<run_name>, wherever the run was saved
    test_upstream_defects::test_run_is_resumed_where_it_was_saved
14  the token for the Hub goes to Weights & Biases
    test_upstream_defects::test_token_is_written_nowhere
    test_sinks::test_wandb_gets_the_value_of_every_third_step
15  kl is a cross-entropy
    test_end_to_end::test_kl_is_a_divergence
16  accumulation stretches the schedule of the learning rate; a short run never leaves the warm-up
    test_optim::test_lr_rises_linearly_then_falls_to_the_end
    test_upstream_defects::test_learning_rate_falls_to_the_end_with_accumulation
    test_failures::test_warnings
17  k_decay_steps breaks multi_topk and groupmax, and k is saved as it is at that moment
    test_upstream_defects::test_k_decays_with_multi_topk
    test_options::test_groupmax_k_decays_through_divisors
    test_options::test_k_decays_and_the_saved_k_is_the_target
18  batches without a token, and losses that are no number, are trained on and saved
    test_upstream_defects::test_batch_without_tokens_changes_nothing
    test_failures::test_non_finite_loss_keeps_earlier_checkpoints
19  lr 0 means the default
    test_upstream_defects::test_learning_rate_of_zero_is_refused
"""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from oracle import Oracle
from runs import BASE, Trained, TrainFunction, command, flags
from sparsify_core import Sae
from sparsify_core.capture.load import load_model
from sparsify_core.cli import main
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.data.sequences import load_sequences
from sparsify_core.rundir import RunDir


def test_every_defect_has_tests_that_exist() -> None:
    numbers: list[str] = []
    for line in (__doc__ or "").splitlines()[2:]:
        if number := re.match(r" ?(\d+)  ", line):
            numbers.append(number[1])
            named = 0
        elif line.strip():
            module, name = line.strip().split("::")
            tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, line
            named += 1
        else:
            assert named, f"nothing shows {numbers[-1]}"
    assert numbers == [str(number) for number in range(1, 20)]


@pytest.fixture(scope="module")
def loud_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in float16, whose activations have squares that float16 cannot add up."""
    folder = tmp_path_factory.mktemp("loud") / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 1000
    save_file({name: w.half() for name, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    return folder


def test_float16_model_is_trained(train: TrainFunction, loud_model: Path) -> None:  # 2
    fvu = train(model=loud_model, dtype="float16", max_tokens=2560).series("fvu/layers.0")
    assert 0 < fvu[-1] < 0.8 * fvu[0]


@pytest.mark.integration
def test_muon_replicas_equal_one_process(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:  # 3
    changes = {"optimizer": "muon", "lr": 0.002, "skip_connection": True}
    runs = [RunDir(tmp_path / name) for name in ("one", "two")]
    for words in (
        command(tiny_model, tiny_text, runs[0].root, batch_size=4, **changes),
        command(tiny_model, tiny_text, runs[1].root, processes=2, batch_size=2, **changes),
    ):
        done = subprocess.run(words, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
    one, two = (Trained(0, run).weights(10) for run in runs)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)


def test_logged_values_do_not_depend_on_how_often_they_are_logged(train: TrainFunction) -> None:  # 5
    often, seldom = train("often").series("fvu/layers.0"), train("seldom", log_every=4).series("fvu/layers.0")
    assert seldom == [often[3], often[7], often[9]]


def test_end_to_end_transcoder_starts_at_the_mean_output(train: TrainFunction) -> None:  # 8
    done = train(
        loss_fn="ce", transcode=True, layers=[], hookpoints=["layers.0.mlp"], max_tokens=64, lr=1e-9, eval_tokens=0
    )
    config = RunConfig.model_validate_json(done.run_dir.config.read_text())
    sequences, outputs = load_sequences(config), []
    model = load_model(config, torch.device("cpu"))
    model.base_model.get_submodule("layers.0.mlp").register_forward_hook(lambda _m, _i, out: outputs.append(out))
    with torch.no_grad():
        model(torch.from_numpy(sequences.rows.take(sequences.train[:4])))
    mean = outputs[0].flatten(0, 1).mean(0)
    torch.testing.assert_close(done.weights(1, "layers.0.mlp")["b_dec"], mean, atol=1e-7, rtol=1e-4)


def test_best_of_several_seeds_is_kept(train: TrainFunction) -> None:  # 10
    done = train(init_seeds=[0, 1], save_best=True, keep_last=1, save_every=2)
    assert done.exit_code == 0
    assert len(done.evaluation(10)["coders"]) == 2


def test_counters_of_several_seeds_are_resumed(train: TrainFunction) -> None:  # 10
    changes = {"init_seeds": [0, 1], "k": 1, "num_latents": 512, "save_every": 4}
    last = train(**changes).run_dir.checkpoint(10)
    whole = load_file(last.training_tensors(0))
    shutil.rmtree(last.root)
    assert train(resume=True, **changes).events(2)[0].resumed_step == 8
    resumed = load_file(last.training_tensors(0))
    for name in ("layers.0/seed0", "layers.0/seed1"):
        counts = whole[f"tokens_since_fired/{name}"]
        assert int(counts.max()) == 640  # some never fired
        assert torch.equal(resumed[f"tokens_since_fired/{name}"], counts)


@pytest.mark.parametrize("name", [None, "mine"])
def test_run_is_resumed_where_it_was_saved(  # 13
    tiny_model: Path, tiny_text: Path, tmp_path: Path, one_core: None, name: str | None
) -> None:
    changes = {"save_dir": tmp_path / "else", **({"run_name": name} if name else {})}
    words = [str(tiny_model), str(tiny_text), *flags({**BASE, **changes})]
    assert main(words) == main([*words, "--resume"]) == 0
    run = Trained(0, RunDir(tmp_path / "else" / (name or "unnamed")))
    assert run.events(2)[0].resumed_step == 10


def test_token_is_written_nowhere(train: TrainFunction, monkeypatch: pytest.MonkeyPatch) -> None:  # 14
    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken")
    done = train()
    assert not [spec.name for spec in iter_fields(RunConfig) if "hf_token" in spec.name]
    files = [path for path in done.run_dir.root.rglob("*") if path.is_file()]
    assert {"config.json", "0001.jsonl", "manifest.json"} <= {path.name for path in files}
    assert not [path for path in files if b"hf_verysecrettoken" in path.read_bytes()]


def test_learning_rate_falls_to_the_end_with_accumulation(train: TrainFunction) -> None:  # 16
    lr = train(grad_acc_steps=2, batch_size=2).series("lr")
    assert len(lr) == 10
    assert max(lr) == pytest.approx(0.01)
    assert lr[-1] == pytest.approx(0.01 / 8)


def test_k_decays_with_multi_topk(train: TrainFunction) -> None:  # 17
    done = train(k_decay_steps=4, multi_topk=True)
    assert done.exit_code == 0
    assert done.series("k")[0] == 128
    assert np.isfinite(done.series("multi_topk_fvu/layers.0")).all()


def test_batch_without_tokens_changes_nothing(train: TrainFunction, tmp_path: Path) -> None:  # 18
    """Every fifth sequence is excluded as a whole; beside others in a step, it might as well not be there."""
    rows = np.random.default_rng(0).integers(2, 66, (60, 16))
    rows[::5] = 9
    for name, left in (("all", rows), ("without", rows[(rows != 9).any(1)])):
        datasets.Dataset.from_dict({"input_ids": left.tolist()}).save_to_disk(str(tmp_path / f"{name}-data"))
    changes = {"exclude_tokens": [9], "eval_tokens": 0, "lr": 1e-3, "max_tokens": "none"}
    # One step over everything, so that the order of the sequences does not matter.
    every = train("all", dataset=tmp_path / "all-data", batch_size=1, grad_acc_steps=60, **changes)
    without = train("without", dataset=tmp_path / "without-data", batch_size=1, grad_acc_steps=48, **changes)
    assert every.series("fvu/layers.0") == pytest.approx(without.series("fvu/layers.0"), rel=1e-6)
    for name, tensor in without.weights(1).items():
        torch.testing.assert_close(every.weights(1)[name], tensor, atol=1e-5, rtol=1e-5)


def test_learning_rate_of_zero_is_refused(train: TrainFunction, capsys: pytest.CaptureFixture[str]) -> None:  # 19
    assert train(lr=0).exit_code == 2
    assert "lr: input should be greater than 0" in capsys.readouterr().err


UPSTREAM = """
import json, sys, torch
from pathlib import Path
from datasets import Dataset
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer
from transformers import AutoModel

root, tiny, loud = map(Path, sys.argv[1:4])
seen = {}
torch.manual_seed(0)
x, dead = torch.randn(30, 16), torch.arange(64) < 20
for name in ("auxk", "multi_topk"):
    coder = SparseCoder(16, SparseCoderConfig(num_latents=64, k=4, multi_topk=name == "multi_topk"))
    out = coder(x, x, dead_mask=dead)
    loss = out.auxk_loss if name == "auxk" else out.multi_topk_fvu
    loss.backward()
    grad = coder.encoder.weight.grad
    seen[name] = 0.0 if grad is None else float(grad.abs().max())
    seen[f"{name}_decoder"] = float(coder.W_dec.grad.abs().max())
    seen[f"{name}_latents"] = out.latent_indices.shape[1]

data = Dataset.from_dict({"input_ids": torch.randint(2, 66, (40, 16)).tolist()}).with_format("torch")
for name, model in (("tiny", tiny), ("loud", loud)):
    config = TrainConfig(
        SparseCoderConfig(expansion_factor=4, k=4), batch_size=4, hookpoints=["layers.0"], run_name=name,
        save_dir=str(root), log_to_wandb=False, lr=0.01,
    )
    trainer = Trainer(config, data, AutoModel.from_pretrained(model, dtype="auto"))
    before = trainer.saes["layers.0"].encoder.weight.detach().clone()
    trainer.fit()
    seen[f"{name}_moved"] = float((trainer.saes["layers.0"].encoder.weight - before).abs().max())
saved = SparseCoder.load_from_disk(root / "tiny" / "layers.0")
seen["norms"] = saved.W_dec.norm(dim=1).tolist()
seen["by_pattern"] = len(SparseCoder.load_many(str(root / "tiny"), local=True, pattern="layers.0"))
(root / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, loud_model: Path, oracle: Oracle) -> Path:
    """Folder with `seen.json`, what was seen of upstream, and its run `tiny`."""
    root = tmp_path_factory.mktemp("upstream")
    oracle.run(UPSTREAM, root, tiny_model, loud_model)
    return root


@pytest.fixture(scope="module")
def seen(upstream: Path) -> dict[str, float | list[float]]:
    return json.loads((upstream / "seen.json").read_text())


@pytest.mark.integration
def test_upstream_trains_no_encoder_by_auxk_and_multi_topk(seen: dict[str, float]) -> None:  # 1
    for name in ("auxk", "multi_topk"):
        assert seen[name] == 0 < seen[f"{name}_decoder"]


@pytest.mark.integration
def test_upstream_does_not_train_on_a_float16_model(seen: dict[str, float]) -> None:  # 2
    assert seen["tiny_moved"] > 0.01
    assert seen["loud_moved"] == 0


@pytest.mark.integration
def test_upstream_answers_with_4k_latents(seen: dict[str, float]) -> None:  # 6
    assert (seen["auxk_latents"], seen["multi_topk_latents"]) == (4, 16)


@pytest.mark.integration
def test_upstream_saves_rows_of_other_norms(seen: dict[str, list[float]]) -> None:  # 9
    assert max(abs(norm - 1) for norm in seen["norms"]) > 1e-3


@pytest.mark.integration
def test_upstream_finds_nothing_by_pattern(upstream: Path, seen: dict[str, float]) -> None:  # 11
    assert seen["by_pattern"] == 0
    assert list(Sae.load_many(str(upstream / "tiny"), local=True, pattern="layers.0")) == ["layers.0"]
