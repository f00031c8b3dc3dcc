"""Streams and epochs: what is trained on, in which order, and what never is."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from pydantic import ValidationError

from runs import TrainFunction
from sparsify_core.config import RunConfig
from sparsify_core.data.read_ahead import ReadAhead
from sparsify_core.data.sequences import Sequences, load_sequences
from sparsify_core.errors import DataError


def load(dataset: Path, model: Path = Path("unused"), **changes: object) -> Sequences:
    values = {"ctx_len": 8, "eval_tokens": 16, "max_tokens": 800, "streaming": True, **changes}
    return load_sequences(RunConfig(model=str(model), dataset=str(dataset), **values))  # type: ignore[arg-type]


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """100 tokenised sequences of 8 tokens; sequence i holds the ids 8i to 8i + 7."""
    path = tmp_path / "numbered.jsonl"
    rows = np.arange(800).reshape(100, 8).tolist()
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


def numbers(sequences: Sequences, first: int, last: int) -> list[int]:
    with closing(ReadAhead(sequences, size=last - first, rank=0, world_size=1, end=last)) as reader:
        ((_, batch),) = reader.batches(first, last)
    return [int(row[0]) // 8 for row in batch]


def test_held_out_sequences_come_first_and_are_never_trained_on(numbered: Path) -> None:
    sequences = load(numbered, num_epochs=2, max_tokens=2 * 84 * 8)
    assert sequences.held_out_tokens().flatten().tolist() == list(range(16))
    epochs = [numbers(sequences, 0, 84), numbers(sequences, 84, 168)]
    # The documents that were opened for the held-out sequences are left out as a whole, 16 of them.
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(16, 100))
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_any_part_of_the_stream_can_be_read_again(numbered: Path) -> None:
    whole = numbers(load(numbered), 0, 60)
    again = load(numbered)
    assert numbers(again, 40, 60) == whole[40:60]
    assert numbers(again, 0, 20) == whole[:20]
    assert numbers(load(numbered, shuffle_seed=1), 0, 60) != whole


def test_ranks_share_a_stream(numbered: Path) -> None:
    def share(rank: int, world_size: int) -> list[Any]:
        with closing(ReadAhead(load(numbered), size=4, rank=rank, world_size=world_size, end=16)) as reader:
            return [*reader.batches(0, 8), *reader.batches(8, 16)]

    one, two = share(0, 1), [share(rank, 2) for rank in range(2)]
    assert [start for start, _ in one] == [0, 4, 8, 12]
    for i, (start, batch) in enumerate(one):
        assert two[i % 2][i // 2][0] == start
        assert np.array_equal(batch, two[i % 2][i // 2][1])


def test_stream_that_ends_early_says_so(numbered: Path) -> None:
    sequences = load(numbered, max_tokens=1600)
    with pytest.raises(DataError, match="ended before 1600 tokens of max_tokens, after num_epochs = 1"):
        numbers(sequences, 80, 90)
    with pytest.raises(DataError, match="does not fill the 200 held-out sequences"):
        load(numbered, eval_tokens=1600)


def test_text_is_streamed(tiny_text: Path, tiny_model: Path) -> None:
    by_option = load(tiny_text, tiny_model)
    by_argument = load(tiny_text, tiny_model, streaming=False, data_args="streaming=True")
    for sequences in (by_option, by_argument):
        assert sequences.held_out_tokens().shape == (2, 8)
        assert numbers(sequences, 0, 100) == numbers(by_option, 0, 100)


def test_saved_folder_is_streamed(tmp_path: Path) -> None:
    rows = {"input_ids": np.arange(800).reshape(100, 8).tolist()}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    assert set(numbers(load(tmp_path / "saved"), 0, 84)) == set(range(16, 100))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "is empty"), ("{", "cannot be read"), (json.dumps({"body": "x"}), "set text_column to one of body")],
)
def test_bad_stream_is_one_sentence(tmp_path: Path, tiny_model: Path, content: str, sentence: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=sentence):
        load(path, tiny_model)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_tokens": None}, "streaming needs max_tokens"),
        ({"max_tokens": None, "streaming": False, "data_args": "a=1, streaming=true"}, "streaming needs max_tokens"),
        ({"max_examples": 5}, "max_examples does not work with streaming"),
        ({"dataset": "text.bin"}, "never read as a whole"),
    ],
)
def test_options_that_do_not_fit_a_stream(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        RunConfig.model_validate({"streaming": True, "max_tokens": 100, **changes})


def test_epochs_differ_in_order_only(numbered: Path) -> None:
    sequences = load(numbered, streaming=False, max_tokens=None, num_epochs=3)
    epochs = sequences.train.reshape(3, 98)
    once = load(numbered, streaming=False, max_tokens=None)
    assert np.array_equal(epochs[0], once.train)
    assert np.array_equal(sequences.held_out, once.held_out)
    for epoch in epochs[1:]:
        assert sorted(epoch) == sorted(once.train)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_budget_ends_the_last_epoch(numbered: Path, tiny_text: Path, tiny_model: Path) -> None:
    sequences = load(numbered, streaming=False, max_tokens=150 * 8, num_epochs=3)
    assert len(sequences.train) == 150
    assert len(set(sequences.train)) == 98
    texts = load(tiny_text, tiny_model, streaming=False, max_tokens=1 << 20, num_epochs=2)
    assert len(texts.train) == 2 * (len(texts.rows) - 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"streaming": True}, {"num_epochs": 2, "max_examples": 22}])
def test_resumed_run_over_a_stream_or_epochs_is_bit_equal(
    train: TrainFunction, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    from sparsify_core.train.trainer import Trainer

    whole = train("whole", **changes)
    original = Trainer._train_step

    def stopping(self: Trainer, number: int) -> object:
        if number + 1 == 6:
            self.stop._asked_at = 0.0
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopping)
        assert train("cut", **changes).events()[-1].outcome == "stopped"
    resumed = train("cut", resume=True, **changes)
    assert len(whole.series("fvu/layers.0")) == 10
    for key, tensor in whole.weights(10).items():
        assert np.array_equal(tensor.numpy(), resumed.weights(10)[key].numpy())
    assert resumed.evaluation(10) == whole.evaluation(10)
