"""YAML, command line and request of a configuration, and back: nothing is lost, and errors name their line."""

import json
import shlex
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from server.services.notation import NotationError, from_command, from_yaml, to_command, to_request, to_yaml
from server.services.requests import OWNED, Launch
from sparsify_core.config import FieldSpec, RunConfig, iter_fields, nest

_HARD = ("no", "1e-3", "2024-01-01", "null", "- a", "a: b", "'", '"', "\\", "x\ny", "--k", "é 漢 🦜", "#", "~")
ODD = st.one_of(st.text(min_size=1, max_size=20), st.sampled_from(_HARD))


def values_of(spec: FieldSpec) -> st.SearchStrategy[Any]:
    low, high = spec.minimum or 0, spec.maximum or 2**40
    match spec.kind:
        case "bool":
            return st.booleans()
        case "choice":
            return st.sampled_from(spec.choices)
        case "int":
            return st.integers(int(low), int(high) - 1)
        case "float":
            return st.floats(low, high, exclude_min=True)
        case "list[int]":
            return st.lists(st.integers(0, 2**31), max_size=4, unique=True)
        case "list[str]":
            return st.lists(ODD, max_size=4)
        case _:
            return ODD


@st.composite
def configs(draw: st.DrawFn) -> RunConfig | None:
    """Any configuration that a server takes; None where the drawn fields do not fit each other."""
    fields = [spec for spec in iter_fields(RunConfig) if spec.name not in OWNED]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=8, unique_by=lambda spec: spec.name))
    try:
        return RunConfig.model_validate(nest({spec.name: draw(values_of(spec)) for spec in chosen}))
    except ValidationError:
        return None


@st.composite
def launches(draw: st.DrawFn) -> dict[str, Any]:
    """What a run may be asked for with, without what is None or empty."""
    names = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=40) | st.sampled_from(_HARD)
    asked = {
        "name": draw(names | st.none()),
        "num_processes": draw(st.integers(1, 64)),
        "num_nodes": draw(st.integers(1, 64)),
        "min_memory_gb": draw(st.floats(0, 100_000, exclude_min=True) | st.none()),
        "labels": draw(st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), max_size=3)),
    }
    try:
        return Launch.model_validate(asked).model_dump(exclude_defaults=True)
    except ValidationError:
        return {}


@settings(max_examples=25, deadline=None)
@given(configs(), launches())
def test_nothing_is_lost_on_the_way_to_a_text_and_back(config: RunConfig | None, launch: dict[str, Any]) -> None:
    if config is None:
        return
    reading = from_yaml(to_yaml(config, **launch))
    assert (reading.config, reading.launch) == (config, Launch(**launch).model_dump() if launch else {})
    asked = [f"--{name.replace('_', '-')}={launch[name]}" for name in launch if name != "labels"]
    asked += [f"--label={label}" for label in launch.get("labels", [])]
    line = shlex.join(["sparseboard", "runs", "launch", "owner/model", "owner/data", *asked])
    assert from_command(line).launch == Launch(**launch).model_dump()
    assert from_yaml(config.model_dump_json()).config == config
    body = json.loads(shlex.split(to_request(config, url="http://x"))[-1])
    assert RunConfig.model_validate(body["config"]) == config
    texts = [text for text in _texts(config.model_dump()) if text.startswith("-") or text.lower() in ("none", "null")]
    try:
        assert from_command(to_command(config)).config == config
    except NotationError:
        assert texts, "only such texts may be beyond what flags can say"


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in _texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value)]
    return [node] if isinstance(node, str) else []


def test_a_command_has_a_flag_to_a_line_and_torchrun_for_many() -> None:
    config = RunConfig(model="gpt2", dataset="a/b", hookpoints=["h.*.mlp"], sae={"k": 64, "transcode": True}, lr=1e-5)
    text = to_command(config, num_processes=2, num_nodes=3)
    lines = text.rstrip("\n").split(" \\\n  ")
    meeting = ["--nnodes 3", "--rdzv-backend c10d", "--rdzv-endpoint HOST:29400", "--rdzv-id RUN"]
    launcher = ["python -m torch.distributed.run", *meeting, "--nproc_per_node 2 -m sparsify_core gpt2 a/b"]
    assert lines[:6] == launcher
    assert lines[6:] == ["--k 64", "--transcode", "--hookpoints 'h.*.mlp'", "--lr 1e-05"]
    reading = from_command(text)
    assert reading.config == config
    assert reading.launch == {"num_processes": 2, "num_nodes": 3}


@pytest.mark.parametrize(
    "text",
    [
        "python -m sparsify gpt2 a/b --k 64 --run_name mine --save_dir out",
        "python3 -m torch.distributed.run --standalone -m sparsify gpt2 a/b -k 64 --run_name mine --save_dir out",
        "HF_HOME=hf torchrun --nproc_per_node gpu -m sparsify gpt2 a/b -k 64 --run_name mine --save_dir out",
        "$ python -m sparsify_core gpt2 \\\r\n  a/b --k=64 --run-name mine --save_dir out",
        "gpt2 a/b --k 64 --run_name mine --save_dir out",
        "nohup python -m sparsify gpt2 a/b --k 64 --run_name mine --save_dir out &",
    ],
)
def test_command_lines_are_taken_as_they_are_pasted(text: str) -> None:
    reading = from_command(text)
    assert reading.config == RunConfig(model="gpt2", dataset="a/b", sae={"k": 64})
    assert reading.launch == {"name": "mine"}
    assert reading.notes[-1] == "save_dir is left out: Sparseboard decides it for every run."
    unread = ("num_processes stays as it was: torchrun's 'gpu' is no number.",) if "gpu" in text.split() else ()
    assert reading.notes[:-1] == unread


def test_a_line_that_queues_a_run_is_taken_as_it_is_pasted() -> None:
    reading = from_command(
        "TOKEN=x .venv/bin/sparseboard runs launch --name 'my fox' --num-processes 2 --label a100 \\\n"
        "  gpt2 a/b --k 64 --min-memory-gb 40 --label fast --data-dir /data"
    )
    assert reading.config == RunConfig(model="gpt2", dataset="a/b", sae={"k": 64})
    asked = {"name": "my fox", "num_processes": 2, "min_memory_gb": 40, "labels": ["a100", "fast"]}
    assert reading.launch == asked | {"num_nodes": 1}
    assert reading.notes == ("data_dir is left out: the run is queued here.",)


def test_a_section_says_all_that_a_run_is_asked_for_with() -> None:
    default = Launch().model_dump()
    assert from_yaml("run: {num_nodes: 2}\nrun_name: fox").launch == default | {"num_nodes": 2, "name": "fox"}
    assert from_yaml("run: {name: owl}\nrun_name: fox").launch == default | {"name": "owl"}
    assert from_yaml("run:\nmodel: gpt2").launch == default
    assert from_yaml("model: gpt2").launch == {}


@pytest.mark.parametrize("text", ["max_tokens: 1e9\n", '{"max_tokens": 1e9}', "max_tokens: 1_000_000_000"])
def test_large_numbers_are_taken_as_people_write_them(text: str) -> None:
    assert from_yaml(text).config.max_tokens == from_command("gpt2 --max_tokens 1.0e9").config.max_tokens == 10**9


@pytest.mark.parametrize("text", ["model: gpt2\nlayers: [1, 2]\n", '{"model": "gpt2", "layers": [1, 2]}'])
def test_a_text_is_parsed_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, parse = [], yaml.parser.Parser.parse_stream_start
    monkeypatch.setattr(yaml.parser.Parser, "parse_stream_start", lambda self: starts.append(1) or parse(self))
    from_yaml(text)
    assert len(starts) == 1


def test_configuration_files_of_sparsify_are_taken() -> None:
    values = {"model": "gpt2", "dataset": "a/b", "hf_token": None, "hookpoints": ["h.1"], "layers": [1], "lr": 0.0}
    reading = from_yaml(json.dumps(values | {"sae": {"k": 8}, "run_name": "old", "resume": False}))
    assert reading.config == RunConfig(model="gpt2", dataset="a/b", hookpoints=["h.1"], sae={"k": 8})
    assert (reading.launch, reading.notes) == ({"name": "old"}, ())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("model: gpt2\nsae:\n  k: many\n", 3, "sae.k: input should be a valid integer"),
        ("model: gpt2\n\nmodell: x\n", 3, "modell: there is no such field"),
        ("model: gpt2\nsae:\n  k: 9\n  num_latents: 4\n", 3, "k = 9 is more than num_latents = 4"),
        ("model: gpt2\nlr: [\n", 3, "this is not YAML"),
        ('{"model": "gpt2",\n "lr": }', 2, "this is not"),
        ("lr: 1\nsae: {k: 4}\nlr: 2\n", 3, "lr stands on line 1 already"),
        ('{"sae": {"k": 8,\n "k": 9}}', 2, "sae.k stands on line 1 already"),
        ("gpt2", 1, "write names and values"),
        ("model: gpt2\nhf_token: secret\n", 2, "set HF_TOKEN"),
        ("model: gpt2\nhookpoints:\n- '[a'\n", 2, "'[a' matches no module: its brackets are not whole"),
        ("model: gpt2\nrun:\n  name: a\n  gpus: 2\n", 4, "run.gpus: there is no such field"),
        ("run: {num_processes: 0}\n", 1, "run.num_processes: input should be greater than or equal to 1"),
        ("model: gpt2\nrun: fox\n", 2, "write names and values below run"),
        ("a: &a [1]\nb: *a\n", 2, "aliases"),
        ("model: \x00", None, "this is not YAML"),
        ("model: gpt2\nlayers: " + "[" * 10_000, 2, "nested deeper than 10 levels"),
        ('{"layers": ' + "[" * 500 + "]" * 500 + "}", 1, "nested deeper than 10 levels"),
        ("model: gpt2\nrun_name: 0x" + "f" * 5000, 2, "longer than 100 characters"),
        ("max_tokens: 1" + ":1" * 5000, 1, "longer than 100 characters"),
    ],
)
def test_an_error_in_yaml_names_its_line(text: str, line: int | None, message: str) -> None:
    with pytest.raises(NotationError) as caught:
        from_yaml(text)
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].line == line


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("python -m sparsify gpt2 a/b \\\n  --kk 3", 2, "unrecognized arguments: --kk"),
        ("python -m sparsify gpt2 a/b \\\n  --lr 0.1 \\\n  -k many", None, "sae.k: input should be a valid integer"),
        ("python -m sparsify gpt2 a/b \\\n --batch-size 0", 2, "batch_size: input should be greater than"),
        ("gpt2 'a/b", None, "no closing quotation"),
        ("gpt2 a/b --help", 1, "leave it out"),
        ("gpt2 a/b\\\n --hf_token x", None, "set HF_TOKEN"),
        ("sparseboard runs launch gpt2 a/b \\\n --num-nodes many", 2, "num_nodes: input should be a valid integer"),
        ("sparseboard runs launch gpt2 a/b \\\n --name", 2, "argument --name: expected one argument"),
        ("sparseboard runs launch \\\n --config a.yaml", 2, "paste it into YAML"),
        ("sparseboard runs launch gpt2 a/b --kk 3", 1, "unrecognized arguments: --kk"),
        ("gpt2 a/b \\\n --hookpoints layers..5", 2, "'layers..5' matches no module: a dot has no name"),
        ("gpt2 a/b -hk3", 1, "unrecognized arguments: -hk3"),
        ("torchrun --nproc_per_node -m sparsify_core gpt2 a/b", None, "expected one argument"),
        ("torchrun --nnodes " + "9" * 5000 + " -m sparsify_core gpt2 a/b", None, "torchrun: "),
    ],
)
def test_an_error_in_a_command_names_its_line(text: str, line: int | None, message: str) -> None:
    with pytest.raises(NotationError) as caught:
        from_command(text)
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].line == line
