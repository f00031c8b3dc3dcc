"""The language of the search box: `state:running model:gpt2 k>32 -tag:draft "layer 5"`. Pure: text in, terms out.

query       terms, all of which must hold, separated by spaces
term        word | field operator value,value,...     with a `-` before it: must not hold
operator    `:` (text: contains), `=` (is exactly), `!=`, `>`, `>=`, `<`, `<=`
word, value bare, or "quoted" to hold spaces; in quotes `\\"` is a quote and `\\\\` a backslash
"""

import re
from dataclasses import dataclass

MAX_TERMS = 30
OPERATORS = (":", "=", "!=", ">=", "<=", ">", "<")
_FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)(:|!=|>=|<=|=|>|<)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE_WORD = re.compile(r'[^\s"]+')
_BARE_VALUE = re.compile(r'[^\s",]+')
_SPACE = re.compile(r"\s*")


class QueryError(Exception):
    """A query that cannot be understood; the message says what to write instead."""


@dataclass(frozen=True)
class Word:
    """Free text, looked for in what people know a run by."""

    text: str
    negated: bool = False


@dataclass(frozen=True)
class Comparison:
    """`field operator value`; with several values one of them must hold. `!=` is parsed as a negated `=`."""

    field: str
    operator: str
    values: tuple[str, ...]
    negated: bool = False


Term = Word | Comparison


def parse(text: str) -> list[Term]:
    """The terms of a query, in their order. Raises QueryError."""
    if "\x00" in text:
        raise QueryError("The search holds an invisible character: remove it.")
    reader = _Reader(text)
    terms: list[Term] = []
    while not reader.at_end():
        terms.append(_term(reader))
        if len(terms) > MAX_TERMS:
            raise QueryError(f"A search may have at most {MAX_TERMS} terms.")
    return terms


class _Reader:
    """A place in the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def at_end(self) -> bool:
        """Skip spaces; whether nothing follows them."""
        self.take(_SPACE)
        return self._at == len(self._text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Move behind `pattern` if it stands here."""
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def sees(self, *starts: str) -> bool:
        return self._text.startswith(starts, self._at)

    def skip(self, start: str) -> bool:
        """Move behind `start` if it stands here."""
        found = self.sees(start)
        self._at += len(start) if found else 0
        return found


def _term(reader: _Reader) -> Term:
    negated = reader.skip("-")
    field = reader.take(_FIELD)
    if field is None:
        return Word(_text(reader, _BARE_WORD, "-"), negated)
    name, operator = field[1], field[2]
    values = [_text(reader, _BARE_VALUE, field[0])]
    while reader.skip(","):
        values.append(_text(reader, _BARE_VALUE, field[0]))
    if operator == "!=":
        operator, negated = "=", not negated
    if len(values) > 1 and operator not in (":", "="):
        raise QueryError(f"{field[0]} takes one value; several values go with {name}:")
    return Comparison(name, operator, tuple(values), negated)


def _text(reader: _Reader, bare: re.Pattern[str], before: str) -> str:
    quoted = reader.take(_QUOTED)
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if reader.sees('"'):
        raise QueryError('A quotation mark " is opened and not closed.')
    found = reader.take(bare)
    if found is None:
        raise QueryError(f"A value is missing behind {before}")
    return found[0]
