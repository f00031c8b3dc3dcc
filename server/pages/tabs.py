"""The tabs of the launch form: the configuration as fields, as YAML, as a command and as a request to the API."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.db.tables import Checkpoint, Run
from server.pages import forms, sweep_form
from server.services.notation import (
    NotationError,
    Reading,
    from_command,
    from_yaml,
    to_command,
    to_fork_request,
    to_request,
    to_sweep_request,
    to_yaml,
)
from server.services.notation.reading import Problem
from server.services.requests import RunRequest

Pairs = list[tuple[str, str]]
FORM = "form"
LABELS = {FORM: "Form", "yaml": "YAML", "command": "Command", "api": "API"}
_READERS: dict[str, Callable[[str], Reading]] = {"yaml": from_yaml, "command": from_command}
_LONGEST = 20_000
"""Characters of a text; the largest configuration needs a fraction of it."""


@dataclass(frozen=True)
class Tab:
    """The tab that is shown, with its text and what is wrong with that."""

    name: str = FORM
    text: str = ""
    problems: tuple[Problem, ...] = ()

    @property
    def label(self) -> str:
        return LABELS[self.name]

    @property
    def is_read(self) -> bool:
        """Whether what is typed there counts."""
        return self.name in _READERS


def shown(pairs: Pairs) -> Tab:
    """The tab that a form which comes back showed."""
    typed = dict(pairs)
    name = typed.get("tab", FORM)
    return Tab(name if name in LABELS else FORM, typed.get("text", "").replace("\r\n", "\n"))


def read(pairs: Pairs) -> tuple[Pairs, tuple[str, ...]]:
    """The form's pairs with what the shown text says in place of the fields, and notes on what was left out of it.

    Raises NotationError.
    """
    tab = shown(pairs)
    if not tab.is_read:
        return pairs, ()
    if len(tab.text) > _LONGEST:
        raise NotationError(Problem(f"this is longer than {_LONGEST:,} characters"))
    reading = _READERS[tab.name](tab.text)
    kept = [(name, text) for name, text in pairs if not name.startswith(forms.PREFIX)]
    values = forms.values_of(reading.config.model_dump(mode="json"), **reading.launch)
    said = [name for name in values if name.startswith(forms.PREFIX) or name in reading.launch]
    return [*kept, *((name, forms.sent(values[name])) for name in said)], reading.notes


def write(name: str, pairs: Pairs, *, url: str, fork: tuple[Checkpoint, Run] | None) -> Tab:
    """The tab `name` of what the form says.

    Args:
        url: where this server answers.
        fork: the checkpoint that the form forks, and its run.

    Raises pydantic's ValidationError for a form that is no run; a tab that cannot say it says so itself.
    """
    if name not in LABELS or name == FORM:
        return Tab()
    body = forms.parse(pairs)[1]
    wanted = RunRequest.model_validate(body)
    launch: dict[str, Any] = wanted.model_dump(mode="json", exclude={"config"}, exclude_defaults=True)
    try:
        if name == "yaml":
            text = to_yaml(wanted.config, **launch)
        elif name == "command":
            text = to_command(wanted.config, num_processes=wanted.num_processes, num_nodes=wanted.num_nodes)
        elif fork is not None:
            text = to_fork_request(*fork, wanted, url=url)
        elif (sweep := sweep_form.read(pairs)).is_used:
            text = to_sweep_request(sweep.request(body), url=url)
        else:
            text = to_request(wanted.config, url=url, **launch)
    except NotationError as error:
        return Tab(name, problems=error.problems)
    return Tab(name, text)
