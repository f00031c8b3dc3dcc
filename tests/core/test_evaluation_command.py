"""`python -m sparsify_core eval`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaForCausalLM

from oracle import Oracle
from runs import TrainFunction
from sparsify_core import SparseCoder, SparseCoderConfig, evaluate
from sparsify_core.cli import main
from sparsify_core.config import RunConfig
from sparsify_core.data.sequences import load_sequences
from sparsify_core.metrics import METRICS

UPSTREAM = """
import sys
import torch
from pathlib import Path
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.__main__ import RunConfig

root, model, dataset = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.manual_seed(0)
cfg = SparseCoderConfig(num_latents=64, k=4)
for name in ("layers.0", "layers.1", "best/layers.1/layers.1"):
    SparseCoder(32, cfg).save_to_disk(root / name)
RunConfig(cfg, model=model, dataset=dataset, ctx_len=16, batch_size=3).save_json(root / "config.json")
"""


class Done:
    def __init__(self, code: int, out: str, err: str, path: Path) -> None:
        self.code, self.out, self.err = code, out, err
        self.json: Any = json.loads(path.read_text()) if path.is_file() else None


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: object) -> Done:
        path = tmp_path / "numbers.json"
        path.unlink(missing_ok=True)
        capsys.readouterr()
        code = main(["eval", *map(str, words), "--output", str(path)])
        return Done(code, *capsys.readouterr(), path)

    return command


def close(numbers: dict[str, dict[str, float]]) -> dict[str, Any]:
    return {name: pytest.approx(values, rel=1e-5, abs=1e-6) for name, values in numbers.items()}


def test_a_checkpoint_gives_what_training_wrote(train: TrainFunction, run: Any) -> None:
    trained = train(
        eval_downstream=True,
        layers=[0, 1],
        init_seeds=[0, 1],
        exclude_first=1,
        exclude_special_tokens=True,
        shuffle_seed=7,
        save_every=4,
        micro_acc_steps=2,
    )
    for place, step in ((trained.run_dir.checkpoint(8).root, 8), (trained.run_dir.root, 10)):
        done = run(place)
        assert (done.code, done.err) == (0, "")
        expected = trained.evaluation(step)
        assert done.json.pop("coders") == close(expected.pop("coders"))
        assert done.json == expected
    lines = done.out.splitlines()
    assert lines[0].split() == ["coder", *(name.removeprefix("eval_") for name in METRICS if name.startswith("eval_"))]
    assert [line.split()[0] for line in lines[2:6]] == [
        "layers.0/seed0",
        "layers.0/seed1",
        "layers.1/seed0",
        "layers.1/seed1",
    ]
    assert len({len(line) for line in lines[2:6]}) == 1
    assert expected["token_sha256"] in lines[6]


def test_a_damaged_checkpoint_is_passed_over(train: TrainFunction, run: Any) -> None:
    trained = train(save_every=4)
    weights = trained.run_dir.checkpoint(10).coder("layers.0").weights
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = run(trained.run_dir.root, "--nodownstream")
    assert done.code == 0
    assert "step-00000010 is damaged" in done.err
    assert done.json["coders"] == close(trained.evaluation(8)["coders"])
    assert run(trained.run_dir.checkpoint(10).root).code == 1
    shutil.rmtree(trained.run_dir.checkpoint(8).root)
    done = run(trained.run_dir.root)
    assert (done.code, "no intact checkpoint" in done.err) == (1, True)


def test_other_tokens_are_warned_about(train: TrainFunction, run: Any, tiny_text: Path, tmp_path: Path) -> None:
    checkpoint = train().run_dir.checkpoint(10).root
    done = run(checkpoint, "--shuffle_seed", 1, "--coders", "layers.*")
    assert (done.code, "not the held-out tokens" in done.err) == (0, True)
    shutil.copy(tiny_text, tmp_path / "other.jsonl")
    done = run(checkpoint, "--dataset", tmp_path / "other.jsonl", "--eval_tokens", 330, "--exclude_first", 2)
    assert (done.code, "not the held-out tokens" in done.err) == (0, True)
    assert done.json["tokens"] == 330 // 16 * 14  # not a tenth of them
    assert done.json["exclusions"] == {"tokens": [], "first": 2}


@pytest.mark.integration
def test_a_folder_of_upstream(
    oracle: Oracle, run: Any, tiny_model: Path, tiny_text: Path, tmp_path: Path, one_core: None
) -> None:
    root = tmp_path / "upstream"
    oracle.run(UPSTREAM, root, tiny_model, tiny_text)
    assert json.loads((root / "config.json").read_text())["log_to_wandb"] is True  # which we would refuse to train with
    config = RunConfig(model=str(tiny_model), dataset=str(tiny_text), ctx_len=16, eval_tokens=0, max_tokens=320)
    sequences = load_sequences(config)
    lm = LlamaForCausalLM.from_pretrained(tiny_model)
    for folder, names in ((root, ["layers.0", "layers.1"]), (root / "best", ["layers.1"])):
        done = run(folder, "--eval_tokens", 320, "--device", "cpu")
        assert done.code == 0
        assert "nothing says which tokens were held out" in done.err
        coders = SparseCoder.load_many(str(folder), local=True)
        assert list(coders) == list(done.json["coders"]) == names
        found = evaluate(coders, lm, sequences.rows.take(sequences.train), batch_size=3)
        assert done.json["coders"] == close(found.values)
        assert done.json["tokens"] == 320


def test_a_model_without_its_head(train: TrainFunction, run: Any, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "headless")
    LlamaForCausalLM.from_pretrained(tiny_model).model.save_pretrained(tmp_path / "headless")
    trained = train(model=tmp_path / "headless")
    done = run(trained.run_dir.root)
    assert (done.code, "downstream metrics are left out" in done.err) == (0, True)
    assert done.json["coders"] == close(trained.evaluation(10)["coders"])
    done = run(trained.run_dir.root, "--downstream")
    assert (done.code, "needs the model's predictions" in done.err) == (1, True)
    assert done.json is None


def test_tokens_in_a_memmap(train: TrainFunction, run: Any, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 64, 16 * 200)
    for dtype in ("uint16", "uint32"):
        ids.astype(dtype).tofile(tmp_path / f"{dtype}.bin")
    trained = train(dataset=tmp_path / "uint16.bin", eval_downstream=True)
    done = run(trained.run_dir.root)
    assert (done.code, done.err) == (0, "")
    assert done.json["coders"] == close(trained.evaluation(10)["coders"])
    done = run(trained.run_dir.root, "--dataset", tmp_path / "uint32.bin", "--memmap_dtype", "uint32")
    assert done.code == 0
    ids.astype("uint16").__add__(60).tofile(tmp_path / "foreign.bin")
    done = run(trained.run_dir.root, "--dataset", tmp_path / "foreign.bin")
    assert (done.code, "made for another model" in done.err) == (1, True)


def test_a_repository_of_the_hub(
    train: TrainFunction, run: Any, tiny_model: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pushed config.json has no folders of the machine in it."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    trained = train(eval_downstream=True, layers=[0, 1])
    checkpoint = trained.run_dir.checkpoint(10).root

    def download(name: str, *, allow_patterns: list[str]) -> str:
        assert name == "somebody/coders"
        files = [path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (tmp_path / "snapshot" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint / file, tmp_path / "snapshot" / file)
        config = {**json.loads((checkpoint / "config.json").read_text()), "model": "model", "dataset": "text.jsonl"}
        (tmp_path / "snapshot" / "config.json").write_text(json.dumps(config))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    done = run("somebody/coders", "--model", tiny_model, "--dataset", tiny_text)
    assert (done.code, done.err) == (0, "")
    names = {path.name for path in (tmp_path / "snapshot").rglob("*") if path.is_file()}
    assert names == {"config.json", "eval.json", "cfg.json", "sae.safetensors"}
    assert done.json["coders"] == close(trained.evaluation(10)["coders"])


@pytest.fixture
def coder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a coder and nothing else; the Hub is out of reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment at import
    SparseCoder(32, SparseCoderConfig(num_latents=64, k=4)).save_to_disk(tmp_path / "alone" / "layers.0")
    SparseCoder(8, SparseCoderConfig(num_latents=64, k=4)).save_to_disk(tmp_path / "narrow" / "layers.0")
    SparseCoder(32, SparseCoderConfig(num_latents=64, k=4)).save_to_disk(tmp_path / "strange" / "h.0")
    (tmp_path / "empty").mkdir()
    return tmp_path


BAD: dict[str, tuple[list[str], int, str]] = {
    "no folder": (["{root}/nothing"], 1, "there is no checkpoint folder"),
    "not on the Hub": (["somebody/nothing"], 1, "somebody/nothing is neither a folder here nor"),
    "no coders": (["{root}/empty"], 1, "holds no sparse coder"),
    "no coder matches": (["{root}/alone", "--coders", "layers.0", "layers.7*"], 1, "'layers.7*': it has layers.0"),
    "no model": (["{root}/alone"], 2, "give --model"),
    "no dataset": (["{root}/alone", "--model", "{model}"], 2, "give --dataset"),
    "missing dataset": (["{root}/alone", "--model", "{model}", "--dataset", "no.jsonl"], 1, "no.jsonl does not exist"),
    "missing model": (["{root}/alone", "--model", "./no", "--dataset", "{text}"], 1, "./no does not exist"),
    "less than a sequence": (["{root}/alone", "{both}", "--eval_tokens", "100"], 1, "one sequence of 512 tokens"),
    "nothing at all": (["{root}/alone", "{both}", "--eval_tokens", "0"], 2, "give --eval_tokens"),
    "no number": (["{root}/alone", "{both}", "--eval_tokens", "many"], 2, "eval_tokens: "),
    "all excluded": (
        ["{root}/alone", "{both}", "--exclude_tokens", *map(str, range(66))],
        1,
        "all tokens are excluded",
    ),
    "another model's width": (["{root}/narrow", "{both}"], 1, "maps width 8 to 8"),
    "another model's modules": (["{root}/strange", "{both}"], 1, "no module h.0"),
    "no checkpoint named": ([], 2, "CKPT"),
    "a flag of training": (["{root}/alone", "--lr", "1"], 2, "--lr"),
    "a token": (["{root}/alone", "--hf_token", "hf_secret"], 2, "HF_TOKEN"),
    "no folder to write to": (["{root}/alone", "--output", "{root}/no/file.json"], 2, "--output"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_sentence(
    case: str, coder: Path, tiny_model: Path, tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, code, sentence = BAD[case]
    both = ["--model", str(tiny_model), "--dataset", str(tiny_text), "--ctx_len", "512"]
    filled = [w.format(root=coder, model=tiny_model, text=tiny_text, both="{both}") for w in words]
    complete = [word for w in filled for word in (both if w == "{both}" else [w])]
    assert main(["eval", *complete]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err
    assert "hf_secret" not in err


def test_help_is_there_without_torch() -> None:
    program = "import sys; from sparsify_core.cli import main\ntry: main(['eval', '--help'])\nexcept SystemExit: pass\n"
    program += "print('TORCH' if {'torch', 'transformers', 'datasets'} & set(sys.modules) else 'LIGHT')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("LIGHT")
    for flag in ("CKPT", "--coders", "--downstream", "--output", "--dataset", "--exclude_first", "--eval_tokens"):
        assert flag in done.stdout
    for flag in ("--lr", "--k ", "--save_every", "--eval_every"):
        assert flag not in done.stdout
