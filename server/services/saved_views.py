"""Views of the list of runs that people keep: names for query strings."""

from urllib.parse import parse_qsl, urlencode

from sqlmodel import Session, col, select

from server.db.tables import SavedView
from server.errors import ConflictError
from server.services.lookup import get_row
from server.services.requests import visible

KEPT = {"q": "search", "state": "state", "sort": "sorted by", "fields": "columns"}
"""What of a query string makes a view, with how people call it."""
_PLACE = "cursor"
"""Where in the list somebody was does not."""


def view_name(name: str) -> str:
    """Raises ValueError for a name that cannot be seen."""
    shown = visible(name)
    if shown is None:
        raise ValueError("a view needs a name")
    return shown


def plain_query(query: str) -> str:
    """What of a query string makes a view, always in the same order. Raises ValueError for names that are none."""
    given = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=20))
    unknown = [name for name in given if name not in (*KEPT, _PLACE)]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no parameter of the page /runs: write for example q=tag:paper&sort=fvu")
    return urlencode({name: given[name] for name in KEPT if given.get(name)})


def in_words(query: str) -> str:
    """`search tag:paper, sorted by -fvu`."""
    return ", ".join(f"{KEPT[name]} {value}" for name, value in parse_qsl(query)) or "all runs"


def list_views(session: Session) -> list[SavedView]:
    """All of them, by name."""
    return list(session.exec(select(SavedView).order_by(col(SavedView.name))))


def named(session: Session, name: str) -> SavedView | None:
    """The view of this name."""
    return session.exec(select(SavedView).where(SavedView.name == name)).first()


def save_view(session: Session, name: str, query: str, *, replaces: bool = False) -> SavedView:
    """Keep a view; with `replaces` one of that name shows this from now on, under the same id.

    Raises ConflictError when the name is taken.
    """
    view = (named(session, name) if replaces else None) or SavedView(name=name, query=query)
    return _store(session, view, name, query)


def change_view(session: Session, view_id: str, *, name: str | None = None, query: str | None = None) -> SavedView:
    """Give a view another name, or let it show something else; None leaves what there is.

    Raises NotFoundError; ConflictError when another view has that name.
    """
    view = get_row(session, SavedView, view_id, "view")
    return _store(session, view, view.name if name is None else name, view.query if query is None else query)


def _store(session: Session, view: SavedView, name: str, query: str) -> SavedView:
    other = named(session, name)
    if other is not None and other.id != view.id:
        raise ConflictError(f"There is a view {name} already: choose another name.", code="name_taken")
    view.name, view.query = name, query
    session.add(view)
    session.flush()
    return view


def delete_view(session: Session, view_id: str) -> None:
    """Raises NotFoundError."""
    view = get_row(session, SavedView, view_id, "view")
    session.delete(view)
