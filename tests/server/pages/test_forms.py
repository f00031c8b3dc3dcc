"""The launch form: every configuration field is in it, and what is typed comes back as a valid configuration."""

import pytest
from pydantic import ValidationError

from server.pages import forms
from server.services.requests import OWNED, RunRequest
from sparsify_core.config import RunConfig, iter_fields


def _pairs(values: dict[str, object]) -> list[tuple[str, str]]:
    """What a browser sends: every control, checkboxes as a hidden false and, when ticked, a true."""
    pairs = []
    for name, spec in forms.specs().items():
        value = values[name]
        if spec.kind == "bool":
            pairs += [(name, "false")] + ([(name, "true")] if value else [])
        else:
            pairs.append((name, str(value)))
    return pairs


def test_form_holds_every_field_of_the_configuration() -> None:
    form = forms.build({})
    names = {c.name for group in form.groups for c in (*group.basic, *group.more)}
    wanted = {f"config.{s.name}" for s in iter_fields(RunConfig) if s.name not in OWNED}
    assert names == wanted | (RunRequest.model_fields.keys() - {"config"})


def test_untouched_form_is_the_default_configuration() -> None:
    _, body = forms.parse(_pairs(forms.values_of({})))
    assert RunConfig.model_validate(body["config"]) == RunConfig()


def test_a_configuration_survives_the_form() -> None:
    config = RunConfig(
        model="a/b",
        dataset="c",
        hookpoints=["layers.5", "layers.*.mlp"],
        init_seeds=[1, 2],
        lr=0.00123456789,
        max_tokens=123_456_789,
        sae={"k": 8, "transcode": True},
    )
    values = forms.values_of(config.model_dump(mode="json"), name="x", num_processes=2)
    _, body = forms.parse(_pairs(values))
    assert RunConfig.model_validate(body["config"]) == config
    assert (body["name"], body["num_processes"]) == ("x", "2")


def test_lists_may_be_separated_by_spaces_commas_or_lines() -> None:
    _, body = forms.parse([("config.hookpoints", "layers.1, layers.2\r\nlayers.3"), ("config.layers", "")])
    assert body["config"]["hookpoints"] == ["layers.1", "layers.2", "layers.3"]
    assert body["config"]["layers"] == []


def test_unknown_names_are_left_out() -> None:
    typed, body = forms.parse([("csrf_token", "x"), ("config.evil", "1"), ("__class__", "1")])
    assert typed == {}
    assert body == {"config": {}}


def _refused(**config: object) -> tuple[dict[str, str], list[str]]:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate(config)
    return forms.place_errors((("config", *e["loc"]), e["msg"]) for e in caught.value.errors())


def test_an_error_stands_beside_its_field_and_keeps_the_input() -> None:
    beside, problems = _refused(sae={"k": "many"})
    assert list(beside) == ["config.sae.k"]
    assert problems == []
    form = forms.build({"config.sae.k": "many"}, beside, problems)
    assert [(c.value, bool(c.error)) for c in form.errors] == [("many", True)]


def test_a_pattern_that_can_match_nothing_is_told_with_the_other_errors() -> None:
    beside, problems = _refused(sae={"k": 0}, hookpoints=["layers.5", "[a"])
    assert sorted(beside) == ["config.hookpoints", "config.sae.k"]
    assert beside["config.hookpoints"].startswith("'[a' matches no module: its brackets are not whole")
    assert problems == []


def test_an_error_of_a_list_item_stands_beside_the_list() -> None:
    beside, _ = _refused(init_seeds=["one"])
    assert list(beside) == ["config.init_seeds"]


def test_an_error_of_two_fields_stands_beside_the_first_that_it_names() -> None:
    beside, problems = _refused(sae={"k": 99, "num_latents": 10})
    assert list(beside) == ["config.sae.k"]
    assert beside["config.sae.k"].startswith("k = 99 is more than num_latents = 10")
    assert problems == []


def test_an_error_without_a_field_stands_on_top() -> None:
    assert forms.place_errors([((), "Value error, the moon is full")]) == ({}, ["The moon is full."])


def test_a_group_with_an_error_among_its_further_fields_is_open() -> None:
    form = forms.build({}, {"config.shuffle_seed": "wrong"})
    assert [g.title for g in form.groups if g.is_open] == ["Model and data"]


def test_conditions_name_other_fields_and_hold_for_some_value() -> None:
    fields = {spec.name: spec for spec in iter_fields(RunConfig)}
    conditions = [(s.name, other, p) for s in fields.values() for other, p in s.visible_if.items()]
    assert ("adam_bits", "optimizer", "adam") in conditions
    for name, other, pattern in conditions:
        assert other in fields, name
        assert other != name
        if fields[other].kind == "choice":
            assert set(pattern.lstrip("!").split("|")) < set(fields[other].choices), (name, pattern)


def test_changes_are_told_in_words() -> None:
    before = forms.values_of({"hookpoints": ["layers.1", "layers.2"]})
    after = before | {"config.sae.k": "64", "config.sae.transcode": True, "config.hookpoints": "layers.1 layers.2"}
    assert forms.changes(before, after) == [("k", "32", "64"), ("transcode", "no", "yes")]


@pytest.mark.parametrize(
    ("text", "number"), [("1e9", 10**9), ("2.5E3", 2500), ("1,048,576", 1 << 20), (" 1_000 ", 1000), ("1000.0", 1000)]
)
def test_whole_numbers_are_taken_as_people_write_them(text: str, number: int) -> None:
    body = forms.parse(_pairs(forms.values_of({}) | {"config.max_tokens": text}))[1]
    assert RunRequest.model_validate(body).config.max_tokens == number


@pytest.mark.parametrize("text", ["1.5e0", "1e-3", "1,00", "1,000,", "1e400", "ten"])
def test_what_is_no_whole_number_is_refused_beside_its_field(text: str) -> None:
    body = forms.parse(_pairs(forms.values_of({}) | {"config.max_tokens": text}))[1]
    with pytest.raises(ValidationError) as caught:
        RunRequest.model_validate(body)
    assert [one["loc"] for one in caught.value.errors()] == [("config", "max_tokens")]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"config.dataset": ""}, {"config.dataset": "Must not be empty."}),
        ({"config.init_seeds": ""}, {"config.init_seeds": "Must hold at least 1."}),
        ({"name": "x" * 300}, {"name": "Must have at most 200 characters."}),
        ({"labels": "a!"}, {"labels": "Must be of letters, digits, dots, dashes and underscores, 50 at most."}),
    ],
)
def test_errors_speak_of_fields_not_of_types(typed: dict[str, str], says: dict[str, str]) -> None:
    body = forms.parse(_pairs(forms.values_of({}) | typed))[1]
    with pytest.raises(ValidationError) as caught:
        RunRequest.model_validate(body)
    assert forms.place_errors((one["loc"], one["msg"]) for one in caught.value.errors())[0] == says
