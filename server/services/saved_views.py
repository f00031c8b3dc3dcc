"""Views of the list of runs that people keep: names for query strings."""

from urllib.parse import parse_qsl, urlencode

from sqlmodel import Session, col, select

from server.db.tables import SavedView
from server.errors import ConflictError
from server.services.lookup import get_row
from server.services.requests import visible

KEPT = ("q", "state", "sort", "fields")
"""What of a query string makes a view."""
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


def list_views(session: Session) -> list[SavedView]:
    """All of them, by name."""
    return list(session.exec(select(SavedView).order_by(col(SavedView.name))))


def save_view(session: Session, name: str, query: str) -> SavedView:
    """Keep a view. Raises ConflictError when there is one of that name."""
    if session.exec(select(SavedView).where(SavedView.name == name)).first():
        raise ConflictError(f"There is a view {name} already: choose another name.", code="name_taken")
    view = SavedView(name=name, query=query)
    session.add(view)
    session.flush()
    return view


def delete_view(session: Session, view_id: str) -> None:
    """Raises NotFoundError."""
    view = get_row(session, SavedView, view_id, "view")
    session.delete(view)
