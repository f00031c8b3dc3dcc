"""The same text gives upstream's token ids; the same file gives upstream's sequences."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from oracle import Oracle
from sparsify_core.data.library import MemmapDataset, chunk_and_tokenize
from sparsify_core.data.tokenize import chunk_texts
from sparsify_core.errors import DataError

CHUNK = """
import json, sys
from pathlib import Path
from datasets import Dataset
from sparsify.data import chunk_and_tokenize
from transformers import AutoTokenizer

tokenizer, text, out = AutoTokenizer.from_pretrained(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
texts = [json.loads(line)["text"] for line in text.read_text().splitlines()[:40]]
answers = []
for length in (7, 16, 10_000):
    for keep in (False, True):
        data = Dataset.from_dict({"text": texts, "other": texts})
        options = {"format": None, "num_proc": 0, "max_seq_len": length, "return_final_batch": keep}
        chunks = chunk_and_tokenize(data, tokenizer, **options)
        answers.append(chunks["input_ids"][:])
out.write_text(json.dumps(answers))
"""

MEMMAP = """
import json, sys
import numpy as np
from pathlib import Path
from sparsify.data import MemmapDataset

data = MemmapDataset(sys.argv[1], 8, max_examples=19)
parts = [data, data.select(range(3, 9)), *(data.shard(3, i) for i in range(3))]
parts.append(MemmapDataset(sys.argv[1], 4, dtype=np.uint32))
Path(sys.argv[2]).write_text(json.dumps([[part[i]["input_ids"].tolist() for i in range(len(part))] for part in parts]))
"""


def with_bos(folder: Path, target: Path) -> Path:
    """The tokenizer of `folder`, made to add a BOS token to whatever it encodes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[bos])
    tokenizer.save_pretrained(target)
    return target


def byte_pairs(folder: Path) -> Path:
    """A byte-level tokenizer: spaces and separators fall inside tokens."""
    alphabet = "".join(chr(code) for code in range(32, 127))
    pairs = Tokenizer(
        models.BPE({c: i for i, c in enumerate([*alphabet, "ka", "lo", "<end>"])}, [("k", "a"), ("l", "o")])
    )
    PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<end>", model_max_length=512).save_pretrained(folder)
    return folder


def without_rust(folder: Path) -> Path:
    """A tokenizer of bytes written in Python, which returns what overflows in another shape."""
    ByT5Tokenizer(model_max_length=512).save_pretrained(folder)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["plain", "bos", "byte_pairs", "python"])
def test_chunks_are_upstreams(tiny_model: Path, tiny_text: Path, tmp_path: Path, oracle: Oracle, kind: str) -> None:
    makers: dict[str, Any] = {
        "plain": lambda: tiny_model,
        "bos": lambda: with_bos(tiny_model, tmp_path / "tokenizer"),
        "byte_pairs": lambda: byte_pairs(tmp_path / "tokenizer"),
        "python": lambda: without_rust(tmp_path / "tokenizer"),
    }
    folder = makers[kind]()
    oracle.run(CHUNK, folder, tiny_text, tmp_path / "theirs.json")
    theirs = iter(json.loads((tmp_path / "theirs.json").read_text()))

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [json.loads(line)["text"] for line in tiny_text.read_text().splitlines()[:40]]
    data = datasets.Dataset.from_dict({"text": texts, "other": texts})
    for length in (7, 16, 10_000):
        for keep in (False, True):
            chunks = chunk_and_tokenize(
                data, tokenizer, format="numpy", num_proc=0, max_seq_len=length, return_final_batch=keep
            )
            expected = next(theirs)
            assert [row.tolist() for row in chunks["input_ids"][:]] == expected
            if not keep:
                assert chunk_texts(tokenizer, texts, min(length, 512)).tolist() == expected
    if kind == "bos":
        assert {row[0] for row in expected} == {tokenizer.bos_token_id}


@pytest.mark.integration
def test_memmap_is_upstreams(tmp_path: Path, oracle: Oracle) -> None:
    np.random.default_rng(0).integers(0, 1 << 16, 20 * 8).astype(np.uint16).tofile(tmp_path / "tokens.bin")
    oracle.run(MEMMAP, tmp_path / "tokens.bin", tmp_path / "theirs.json")
    data = MemmapDataset(str(tmp_path / "tokens.bin"), 8, max_examples=19)
    parts = [data, data.select(range(3, 9)), *(data.shard(3, i) for i in range(3))]
    parts.append(MemmapDataset(tmp_path / "tokens.bin", 4, dtype=np.uint32))
    ours = [[part[i]["input_ids"].tolist() for i in range(len(part))] for part in parts]
    assert ours == json.loads((tmp_path / "theirs.json").read_text())


def test_memmap_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    np.arange(17, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    with pytest.raises(DataError, match="17 tokens, which is no multiple of ctx_len = 8"):
        MemmapDataset(tmp_path / "tokens.bin", 8)


def test_splits_are_chunked_together(tiny_model: Path) -> None:
    split = datasets.Dataset.from_dict({"text": ["kan kar kas kat kal"] * 9})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    chunks = chunk_and_tokenize(datasets.DatasetDict(a=split, b=split), tokenizer, num_proc=0, max_seq_len=8)
    assert chunks["a"][0]["input_ids"].tolist() == chunks["b"][0]["input_ids"].tolist()
    assert chunks["b"].column_names == ["input_ids"]
