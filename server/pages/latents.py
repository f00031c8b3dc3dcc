"""The latent browser of a checkpoint: sorting, paging and one latent with its snippets, as the template draws them."""

import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from server.numbers import aligned, metric, percent
from sparsify_core.inspect.read import Inspection

PAGE_ROWS = 20
COLUMNS = (("id", "Latent"), ("density", "Density"), ("max", "Max act."), ("norm", "Norm"))
"""Sort keys and headings of the table."""


@dataclass(frozen=True)
class LatentQuery:
    """What the URL asks for. Latent and page numbers outside the coder are moved to the nearest that exists."""

    checkpoint_id: str
    coder: str
    latent: int | None = None
    sort: str = "max"
    ascending: bool = False
    page: int | None = None

    def url(self, **changes: Any) -> str:
        """The stable address of this view with some parameters changed."""
        values: dict[str, Any] = {"coder": self.coder, "latent": self.latent, "sort": self.sort}
        values |= {"order": "asc" if self.ascending else None, "page": self.page} | changes
        if values["sort"] == "max":
            values["sort"] = None
        query = urlencode({name: value for name, value in values.items() if value not in (None, "")})
        return f"/checkpoints/{self.checkpoint_id}?{query}"


def ranking(inspection: Inspection, sort: str, *, ascending: bool) -> npt.NDArray[np.int64]:
    """Latent numbers in table order; equal values by number."""
    if sort == "id":
        return np.arange(inspection.num_latents)
    columns: dict[str, npt.NDArray[Any]] = {
        "density": inspection.firing_frac,
        "max": inspection.max_activation,
        "norm": inspection.decoder_norm,
    }
    values = np.nan_to_num(columns.get(sort, inspection.max_activation).astype(np.float64), nan=-1.0)
    return np.argsort(values if ascending else -values, kind="stable")


def browse(inspection: Inspection, query: LatentQuery) -> dict[str, Any]:
    """Template context of `checkpoint/_latents.html`. Without a latent in the query the first of the page is shown."""
    order = ranking(inspection, query.sort, ascending=query.ascending)
    place = _place_of(order, query.latent)
    pages = max(1, -(-len(order) // PAGE_ROWS))
    page = query.page if query.page is not None else (place // PAGE_ROWS if place is not None else 0)
    page = min(max(page, 0), pages - 1)
    first = page * PAGE_ROWS
    shown = order[first : first + PAGE_ROWS]
    if place is None:
        place = first
    return {
        "num_latents": inspection.num_latents,
        "columns": COLUMNS,
        "sort": query.sort,
        "sort_ascending": query.ascending,
        "sort_urls": {key: _sort_url(query, key) for key, _ in COLUMNS},
        "rows": [_row(inspection, int(latent), query.url(latent=int(latent), page=page or None)) for latent in shown],
        "first_row": first + 1,
        "last_row": first + len(shown),
        "previous_page": query.url(page=page - 1) if page > 0 else None,
        "next_page": query.url(page=page + 1) if page < pages - 1 else None,
        "latent_id": int(order[place]),
        "latent": _latent(inspection, order, place, query),
        "random_url": query.url(latent=_random_alive(inspection), page=None),
    }


def _place_of(order: npt.NDArray[np.int64], latent: int | None) -> int | None:
    if latent is None or not 0 <= latent < len(order):
        return None
    return int(np.flatnonzero(order == latent)[0])


def _sort_url(query: LatentQuery, key: str) -> str:
    flips = key == query.sort and key != "id" and not query.ascending
    return query.url(sort=key, order="asc" if flips else None, page=None)


def _random_alive(inspection: Inspection) -> int:
    alive = np.flatnonzero(inspection.firing_count > 0)
    choices = alive if len(alive) else np.arange(inspection.num_latents)
    return int(choices[secrets.randbelow(len(choices))])


def _density(inspection: Inspection, latent: int) -> str:
    fraction = float(inspection.firing_frac[latent])
    return percent(fraction) if fraction > 0 else "never"


def _numbers(inspection: Inspection, latent: int) -> dict[str, str]:
    return {
        "density": _density(inspection, latent),
        "max_activation": aligned(max(float(inspection.max_activation[latent]), 0.0)),
        "decoder_norm": aligned(float(inspection.decoder_norm[latent])),
    }


def _row(inspection: Inspection, latent: int, url: str) -> dict[str, Any]:
    return {"id": latent, "url": url, **_numbers(inspection, latent)}


def _latent(inspection: Inspection, order: npt.NDArray[np.int64], place: int, query: LatentQuery) -> dict[str, Any]:
    latent = int(order[place])
    strongest = max(float(inspection.max_activation[latent]), 1e-12)
    return {
        "id": latent,
        **_numbers(inspection, latent),
        "previous": query.url(latent=int(order[place - 1]), page=None) if place > 0 else None,
        "next": query.url(latent=int(order[place + 1]), page=None) if place < len(order) - 1 else None,
        "snippets": [
            {"value": aligned(value), "tokens": [_token(*token, strongest) for token in tokens]}
            for value, tokens in inspection.top_snippets(latent)
        ],
    }


def _token(text: str, activation: float | None, is_peak: bool, strongest: float) -> dict[str, Any]:
    level = 0 if activation is None or activation <= 0 else 1 + min(8, int(9 * activation / strongest))
    return {
        "text": visible(text),
        "level": level,
        "is_peak": is_peak,
        "title": f"{text!r}: {metric(activation)}" if activation is not None else "",
    }


def visible(token: str) -> str:
    """A token with its line breaks and tabs shown; spaces stay spaces."""
    return token.replace("\r", "").replace("\n", "\u21b5").replace("\t", "\u21e5")
