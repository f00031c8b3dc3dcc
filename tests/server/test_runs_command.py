"""`sparseboard runs ...` on a data folder without a server."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rows import claim_by
from server.cli import main
from server.db import runs as machine
from server.db.session import Database
from server.db.tables import Run, RunState
from server.settings import Settings

Command = Callable[..., list[str]]


@pytest.fixture
def command(sqlite_settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a subcommand; returns the lines that it printed, or with a failure its sentence."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def carry_out(action: str, *arguments: str, fails: bool = False) -> list[str]:
        code = main(["runs", action, "--data-dir", str(sqlite_settings.data_dir), *arguments])
        out, err = capsys.readouterr()
        assert code == int(fails), err
        return (err if fails else out).splitlines()

    return carry_out


def launched(command: Command, name: str) -> str:
    (line,) = command("launch", "--name", name, "owner/model", "owner/data", "--k", "8", "--hookpoints", "layers.0")
    return line.split()[0]


def names(lines: list[str]) -> list[str]:
    return [line.split()[-1] for line in lines]


def test_a_run_is_launched_controlled_and_shown(command: Command, sqlite_settings: Settings) -> None:
    run_id = launched(command, "first")
    with Database(sqlite_settings).read() as session:
        run = session.get_one(Run, run_id)
        assert (run.config["model"], run.config["sae"]["k"], run.config["hookpoints"]) == (
            "owner/model",
            8,
            ["layers.0"],
        )
    for action, state in (("pause", "paused"), ("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert command(action, run_id)[0].split()[1] == state
    assert "The run first is cancelled" in command("pause", run_id, fails=True)[0]
    (again,) = command("retry", run_id)
    assert command("retry", run_id) == [again]
    shown = command("show", run_id)
    assert [line.split()[2] for line in shown if ": " in line or "command line" in line] == [
        *("queued", "paused", "queued", "cancelled", "retried")
    ]
    assert names(command("list", "--state", "queued")) == ["first"]


def test_the_queue_is_reordered_and_emptied(command: Command, sqlite_settings: Settings) -> None:
    a, b, c = (launched(command, name) for name in "abc")
    command("move", c, "--ahead-of", b)
    command("move", a, "--last")
    with Database(sqlite_settings).write() as session:
        assert [run.name for run in machine.next_queued(session)] == ["c", "b", "a"]
        assert claim_by(session, b)
    assert "have a place in the queue" in command("move", b, "--first", fails=True)[0]
    assert "Name the runs" in command("cancel", fails=True)[0]
    states = {line.split()[-1]: line.split()[1] for line in command("cancel", "--all")}
    assert states == {"a": RunState.CANCELLED, "b": RunState.STOPPING, "c": RunState.CANCELLED}


def test_what_is_wrong_is_one_sentence(command: Command, tmp_path: Path) -> None:
    assert command("show", "0" * 26, fails=True) == ["sparseboard: There is no such run."]
    assert "k: input should be greater" in command("launch", "o/m", "o/d", "--k", "0", fails=True)[0]
    (broken,) = command("launch", "o/m", "o/d", "--hookpoints", "[a", fails=True)
    assert "'[a' matches no module: its brackets are not whole" in broken
    config = tmp_path / "config.yaml"
    config.write_text("model: owner/model\ndataset: owner/data\nsae: {k: 16}\n")
    (line,) = command("launch", "--name", "from-file", "--config", str(config), "--layers", "3")
    assert line.endswith("from-file")


def test_a_state_that_is_none_is_refused_with_those_that_are(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command("list", "--state", "done")
    told = capsys.readouterr().err
    assert "completed" in told
    assert "<" not in told


def test_a_file_says_what_flags_do_not(command: Command, sqlite_settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("run: {name: fox, num_nodes: 2, labels: [a100]}\nmodel: owner/model\ndataset: owner/data\n")
    (line,) = command("launch", "--name", "owl", "--config", str(config), "--num-processes", "4")
    with Database(sqlite_settings).read() as session:
        run = session.get_one(Run, line.split()[0])
    assert (run.name, run.num_processes, run.num_nodes, run.labels) == ("owl", 4, 2, ["a100"])
    for section, problem in (
        ("{gpus: 2}", "run.gpus: there is no such field"),
        ("{num_nodes: 0}", "run.num_nodes: input should be greater"),
        *((nothing, "write names and values below run") for nothing in ("0", "[]", "''")),
    ):
        config.write_text(f"run: {section}\nmodel: owner/model\ndataset: owner/data\n")
        assert problem in command("launch", "--config", str(config), fails=True)[0]
