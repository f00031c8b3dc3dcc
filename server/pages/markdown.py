"""Markdown that people wrote, as HTML that is safe to show: theirs is never let through, only ours is made."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_SCHEMES = ("http", "https", "mailto")
_TOP_HEADING = 3
"""Notes stand under a heading of the page's second level."""

_table = import_module("markdown_it.rules_block.table")  # the package has a function of this name
_table.MAX_AUTOCOMPLETED_CELLS = 1_000  # type: ignore[attr-defined]
"""A short row is filled up with empty cells: with 65,536 of them a note would take seconds at every view."""

_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
_markdown.validateLink = lambda url: urlsplit(url).scheme in _SCHEMES  # type: ignore[method-assign]


def render_markdown(text: str) -> Markup:
    """HTML without raw HTML, images, styles, or links of other schemes than http, https and mailto."""
    tokens = _markdown.parse(text)
    for token in _all(tokens):
        if token.type == "link_open":
            token.attrSet("rel", "nofollow noopener")
        elif token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + _TOP_HEADING - 1)}"
        elif token.type in ("th_open", "td_open"):
            token.attrs.pop("style", None)  # the content security policy forbids it
    return Markup(_markdown.renderer.render(tokens, _markdown.options, {}))  # noqa: S704 - see above


def _all(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or [])
