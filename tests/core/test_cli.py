"""The grammar of the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparsify_core.cli import main, parse
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.errors import ConfigError


def config_of(*words: str) -> RunConfig:
    return parse(["gpt2", "text.jsonl", *words])[0]


def test_flags_are_flat_and_take_both_spellings() -> None:
    config = config_of("--expansion_factor", "8", "--batch-size", "4", "-k", "16", "--max_tokens", "10_000")
    assert (config.sae.expansion_factor, config.batch_size, config.sae.k, config.max_tokens) == (8, 4, 16, 10_000)
    assert (config.model, config.dataset) == ("gpt2", "text.jsonl")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--transcode"], True),
        (["--transcode", "true"], True),
        (["--transcode=true"], True),
        (["--transcode", "False"], False),
        (["--notranscode"], False),
        (["--no-transcode"], False),
    ],
)
def test_booleans(words: list[str], expected: bool) -> None:
    assert config_of(*words).sae.transcode is expected


def test_switch_before_positional_does_not_swallow_it() -> None:
    config = parse(["--transcode", "gpt2", "text.jsonl"])[0]
    assert (config.sae.transcode, config.model) == (True, "gpt2")
    assert not config_of("--no-normalize-decoder").sae.normalize_decoder


def test_lists_are_separated_by_spaces() -> None:
    config = config_of("--hookpoints", "h.*.mlp", "h.3", "--init_seeds", "1", "2")
    assert config.hookpoints == ["h.*.mlp", "h.3"]
    assert config.init_seeds == [1, 2]


def test_none_clears_a_nullable_field() -> None:
    assert config_of("--max_tokens", "none").max_tokens is None


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_config_file_round_trip_and_flags_override(tmp_path: Path, suffix: str) -> None:
    config = config_of("-k", "16", "--layers", "1", "2", "--lr", "0.001")
    path = tmp_path / f"run{suffix}"
    values = config.model_dump() | {"run": {"name": "what Sparseboard is asked for"}}
    path.write_text(json.dumps(values) if suffix == ".json" else yaml.safe_dump(values))
    assert parse(["--config", str(path)])[0] == config
    assert parse(["--config", str(path), "-k", "8"])[0].sae.k == 8
    assert parse(["--config", str(path), "-k", "8"])[0].layers == [1, 2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--k", "many"], "sae.k"),
        (["--batch_size", "0"], "batch_size"),
        (["--no_such_flag", "1"], "no_such_flag"),
        (["--transcode=perhaps"], "true or false"),
        (["--layers", "1", "--hookpoints", "h.1"], "either layers or hookpoints"),
        (["--hf_token", "hf_secret"], "HF_TOKEN"),
        (["--config", "missing.json"], "cannot be read"),
        (["--data_args", "name=x, token=hf_secret"], "data_args may not hold token"),
        (["--batch", "4"], "--batch"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gpt2", "text.jsonl", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert sentence in message
    assert "Traceback" not in message
    assert "hf_secret" not in message


def test_no_words_at_all_are_a_run_with_the_defaults() -> None:
    assert parse([])[0] == RunConfig()


def test_reserved_words_are_not_models() -> None:
    with pytest.raises(ConfigError, match="reserved"):
        parse(["export", "text.jsonl"])


def test_upstream_config_file_with_empty_token_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": "gpt2", "hf_token": None, "sae": {"k": 8}}))
    assert parse(["--config", str(path)])[0].sae.k == 8


def test_token_in_a_file_is_refused_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model": "gpt2", "hf_token": "hf_secret"}))
    assert main(["--config", str(path)]) == 2
    message = capsys.readouterr().err
    assert "set HF_TOKEN" in message
    assert "hf_secret" not in message


def test_help_lists_every_field_without_importing_torch() -> None:
    program = "import sys; from sparsify_core.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    program += "print('TORCH' if {'torch', 'transformers', 'datasets'} & set(sys.modules) else 'LIGHT')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("LIGHT")
    for spec in iter_fields(RunConfig):
        assert f"--{spec.flag}" in done.stdout or spec.flag.upper() in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "config",
        "events",
        "metrics",
        "rundir",
        "errors",
        "manifest",
        "inspect.read",
        "cli",
        "evaluation.command",
        "kernel_table",
    ],
)
def test_shared_modules_do_not_import_torch(module: str) -> None:
    program = f"import sys, sparsify_core.{module}; "
    program += "sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
