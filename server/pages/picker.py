"""The hookpoint picker of the launch form: the modules of the model, and which of them the typed patterns match."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.errors import AppError
from server.pages import forms
from server.services.hookpoints import Match, ModuleGroup, match_hookpoints, module_groups
from server.services.model_shapes import known_answer, shape_of
from server.settings import Settings
from sparsify_core.shape import ModelShape


@dataclass(frozen=True)
class Picker:
    """What the picker shows; `shape` is None while the model has not been read, `problem` says why it cannot be."""

    model: str
    shape: ModelShape | None = None
    groups: tuple[ModuleGroup, ...] = ()
    match: Match | None = None
    problem: str = ""


def build(settings: Settings, values: Mapping[str, Any], *, reads: bool = False) -> Picker:
    """The picker for the values of a form.

    Args:
        reads: whether to read a model that is not known yet, which takes a while.
    """
    body = forms.parse((name, forms.sent(value)) for name, value in values.items())[1]["config"]
    model, revision = str(body.get("model", "")).strip(), body.get("revision")
    try:
        if reads:
            shape_of(settings, model, revision)
    except AppError as error:
        return Picker(model, problem=error.detail)
    answer = known_answer(settings, model, revision)
    if answer is None or answer.shape is None:
        return Picker(model, problem=answer.failure if answer else "")
    try:
        match = match_hookpoints(
            answer.shape,
            hookpoints=body.get("hookpoints", []),
            layers=[int(layer) for layer in body.get("layers", [])],
            layer_stride=max(1, int(body.get("layer_stride", 1))),
        )
    except ValueError:  # no number yet: the form says so when it is sent
        match = None
    return Picker(model, answer.shape, tuple(module_groups(answer.shape)), match)
