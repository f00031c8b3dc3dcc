"""Datasets, chunking, splitting."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from sparsify_core.config import RunConfig
from sparsify_core.data.exclude import excluded_tokens, kept_positions
from sparsify_core.data.read_ahead import ReadAhead
from sparsify_core.data.rows import ArrayRows, check_vocabulary
from sparsify_core.data.sequences import Sequences, load_sequences, token_sha256
from sparsify_core.data.source import parse_data_args
from sparsify_core.data.tokenize import chunk_texts
from sparsify_core.errors import ConfigError, DataError


def load(dataset: Path, model: Path = Path("unused"), **changes: object) -> Sequences:
    values = {"ctx_len": 8, "eval_tokens": 16, **changes}
    return load_sequences(RunConfig(model=str(model), dataset=str(dataset), **values))  # type: ignore[arg-type]


def test_chunks_are_documents_behind_separators(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = ["kan kar kas", "kat kal", "lon lor los lot"]
    ids = tokenizer(" ".join(f"<|endoftext|> {t}" for t in texts)).input_ids
    chunks = chunk_texts(tokenizer, [f" {t} " for t in texts], 4)
    assert chunks.tolist() == [ids[0:4], ids[4:8]]


def test_last_chunk_is_left_out(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    assert chunk_texts(tokenizer, [" kan kar kas kat kal"], 4).shape == (1, 4)
    assert chunk_texts(tokenizer, [" kan"], 4).shape == (0, 4)


def test_lazy_tokenizing_reads_only_what_is_needed(tiny_model: Path, tiny_text: Path) -> None:
    some = load(tiny_text, tiny_model, max_tokens=800)
    everything = load(tiny_text, tiny_model)
    assert len(some.train) == 100
    assert len(some.rows) < len(everything.rows) / 2
    assert some.rows.length == everything.rows.length == 8


@pytest.mark.parametrize("changes", [{}, {"max_tokens": 400}, {"max_examples": 50}])
def test_held_out_is_disjoint_and_fixed(tiny_model: Path, tiny_text: Path, changes: dict[str, int]) -> None:
    first, second = (load(tiny_text, tiny_model, **changes) for _ in range(2))
    assert not set(first.train) & set(first.held_out)
    assert first.held_out_tokens().shape == (2, 8)
    assert token_sha256(first.held_out_tokens()) == token_sha256(second.held_out_tokens())
    assert np.array_equal(first.train, second.train)


def test_held_out_is_at_most_a_tenth(tmp_path: Path) -> None:
    path = write_memmap(tmp_path, 30 * 8)
    assert len(load(path, eval_tokens=10_000).held_out) == 3
    assert len(load(path, eval_tokens=0).held_out) == 0


def write_memmap(folder: Path, num_tokens: int) -> Path:
    path = folder / "tokens.bin"
    np.arange(num_tokens, dtype=np.uint16).tofile(path)
    return path


def test_memmap_is_cut_into_sequences(tmp_path: Path) -> None:
    sequences = load(write_memmap(tmp_path, 30 * 8 + 5))
    rows = sequences.rows.take(np.arange(30))
    assert rows.dtype == np.int64
    assert np.array_equal(rows, np.arange(240).reshape(30, 8))


def test_uint32_memmap_holds_large_ids(tmp_path: Path) -> None:
    ids = np.arange(240, dtype=np.uint32) + 100_000
    ids.tofile(tmp_path / "wide.bin")
    rows = load(tmp_path / "wide.bin", memmap_dtype="uint32").rows
    assert np.array_equal(rows.take(np.arange(30)), ids.reshape(30, 8))


def test_memmap_in_another_dtype_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="490 bytes, which is no whole number of uint32 tokens: set memmap_dtype"):
        load(write_memmap(tmp_path, 245), memmap_dtype="uint32")


def test_vocabulary_that_the_memmap_cannot_hold_is_refused() -> None:
    config = RunConfig(model="llama", dataset="text.bin")
    check_vocabulary(config, 65_536)
    with pytest.raises(DataError, match="128,256 tokens, but uint16 ids end at 65,535"):
        check_vocabulary(config, 128_256)
    check_vocabulary(RunConfig(model="llama", dataset="text.bin", memmap_dtype="uint32"), 128_256)
    check_vocabulary(RunConfig(model="llama", dataset="text.jsonl"), 128_256)


def test_memmap_dtype_without_memmap_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"memmap_dtype = uint32 is about \.bin files"):
        RunConfig(dataset="text.jsonl", memmap_dtype="uint32")


def test_pretokenized_columns_and_saved_folders(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"input_ids": np.arange(160).reshape(20, 8).tolist(), "other": ["x"] * 20})
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "table.parquet")
    for name in ("saved", "table.parquet"):
        rows = load(tmp_path / name).rows
        assert rows.take(np.array([1, 0])).tolist() == [list(range(8, 16)), list(range(8))]


def test_pretokenized_rows_of_different_length_are_refused(tmp_path: Path) -> None:
    rows = [[1, 2, 3]] * 19 + [[1, 2]]
    datasets.Dataset.from_dict({"input_ids": rows}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="different lengths"):
        load(tmp_path / "t.parquet").rows.take(np.arange(20))


def test_plain_text_file(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("kan kar kas kat kal\n" * 100)
    assert load(path, tiny_model).rows.length == 8


def write_texts(folder: Path) -> Path:
    """A folder with the same texts as JSON lines and as Parquet, and others beside them."""
    texts = {"text": ["kan kar kas kat kal"] * 40, "body": ["lon lor los lot lol"] * 40}
    table = datasets.Dataset.from_dict(texts)
    table.to_json(folder / "some.jsonl")
    table.to_parquet(folder / "some.parquet")
    datasets.Dataset.from_dict({"text": ["min mir mis mit mil"] * 40}).to_json(folder / "other.jsonl")
    return folder


def all_rows(sequences: Sequences) -> list[list[int]]:
    rows: list[list[int]] = sequences.rows.take(np.arange(len(sequences.rows))).tolist()
    return sorted(rows)


def test_parquet_is_read_like_json(tmp_path: Path, tiny_model: Path) -> None:
    folder = write_texts(tmp_path)
    by_json, by_parquet = (load(folder / name, tiny_model) for name in ("some.jsonl", "some.parquet"))
    assert all_rows(by_json) == all_rows(by_parquet)
    assert all_rows(load(folder / "some.parquet", tiny_model, text_column="body")) != all_rows(by_json)


def test_data_args_choose_the_files_of_a_folder(tmp_path: Path, tiny_model: Path) -> None:
    folder = write_texts(tmp_path)
    for name in ("some.jsonl", "other.jsonl"):
        chosen = load(folder, tiny_model, data_args=f"data_files={name}")
        assert all_rows(chosen) == all_rows(load(folder / name, tiny_model))


def test_saved_splits_are_chosen_by_name(tmp_path: Path) -> None:
    splits = {name: np.arange(start, start + 160).reshape(20, 8).tolist() for name, start in (("train", 0), ("b", 500))}
    tables = {name: datasets.Dataset.from_dict({"input_ids": ids}) for name, ids in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    assert all_rows(load(tmp_path / "saved")) == splits["train"]
    assert all_rows(load(tmp_path / "saved", split="b")) == splits["b"]
    with pytest.raises(DataError, match="has no split 'test': it has train, b"):
        load(tmp_path / "saved", split="test")


def test_max_examples_limits_what_is_used(tmp_path: Path) -> None:
    path = write_memmap(tmp_path, 100 * 8)
    everything, limited = load(path), load(path, max_examples=30)
    assert [*limited.train, *limited.held_out] == everything.train[:30].tolist()
    assert np.array_equal(load(path, max_examples=1000).train, everything.train)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.jsonl", None, "does not exist"),
        ("missing.bin", None, "does not exist"),
        ("empty.jsonl", "", "is empty"),
        ("other.jsonl", json.dumps({"body": "kan"}), "set text_column to one of body"),
        ("number.jsonl", json.dumps({"text": 3}), "holds int, not text"),
        ("short.jsonl", json.dumps({"text": "kan"}), "shorter than one sequence"),
        ("short.bin", "ab", "shorter than one sequence"),
        ("table.xlsx", "x", "unknown ending"),
        ("broken.jsonl", "{", "cannot be read"),
    ],
)
def test_bad_data_is_one_sentence(
    tmp_path: Path, tiny_model: Path, name: str, content: str | None, sentence: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load(path, tiny_model)
    assert "\n" not in str(caught.value)


def test_ranks_share_a_step_like_consecutive_batches(tmp_path: Path) -> None:
    sequences = load(write_memmap(tmp_path, 40 * 8))

    def share(rank: int, world_size: int) -> list[Any]:
        with closing(ReadAhead(sequences, size=4, rank=rank, world_size=world_size, end=16)) as reader:
            return [*reader.batches(0, 8), *reader.batches(8, 16)]

    one, two = share(0, 1), [share(rank, 2) for rank in range(2)]
    assert [start for start, _ in one] == [0, 4, 8, 12]
    for i, (start, batch) in enumerate(one):
        assert two[i % 2][i // 2][0] == start
        assert np.array_equal(batch, two[i % 2][i // 2][1])


def test_reading_ahead_can_go_back_and_fails_where_the_data_does(tmp_path: Path) -> None:
    sequences = load(write_memmap(tmp_path, 40 * 8))
    with closing(ReadAhead(sequences, size=2, rank=0, world_size=1, end=8)) as reader:
        first = [ids.tolist() for _, ids in reader.batches(0, 4)]
        assert [ids.tolist() for _, ids in reader.batches(0, 4)] == first
        assert [start for start, _ in reader.batches(6, 8)] == [6]

    class Broken(ArrayRows):
        def take(self, indices: Any) -> Any:
            if 1 in indices:
                raise DataError("row 1 is broken")
            return super().take(indices)

    rows = Broken(np.zeros((4, 8), dtype=np.int64))
    with closing(ReadAhead(Sequences(rows, np.arange(4), np.arange(0)), size=1, rank=0, world_size=1, end=4)) as reader:
        batches = reader.batches(0, 4)
        assert next(batches)[0] == 0
        with pytest.raises(DataError, match="row 1 is broken"):
            next(batches)


def test_kept_positions() -> None:
    ids = np.array([[1, 2, 3], [3, 1, 1]])
    assert kept_positions(ids, exclude_tokens=[], exclude_first=0) is None
    kept = kept_positions(ids, exclude_tokens=[3], exclude_first=1)
    assert kept is not None
    assert kept.tolist() == [1, 4, 5]


def test_special_tokens_are_refused_where_the_tokenizer_names_none(tiny_model: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_model, eos_token=None).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="names no BOS, EOS or PAD token"):
        excluded_tokens(RunConfig(model=str(tmp_path), exclude_special_tokens=True))


def test_data_args() -> None:
    assert parse_data_args("a=1, b=x,c=true,d=-0.5") == {"a": 1, "b": "x", "c": True, "d": -0.5}
    with pytest.raises(DataError, match="name=value"):
        parse_data_args("oops")
