"""Series of metrics at rest, and read at the resolution that a chart wants.

New points are rows. Every `HOT_POINTS` of a series and attempt are moved into a chunk: their columns as bytes, and
beside them ever coarser levels of the same, so that a long series is drawn without reading its points. Small chunks are
joined until they have `CHUNK_POINTS`.
"""

from server.db.series.buckets import Buckets, Point, as_json
from server.db.series.reading import Thinned, keys_of, read_series, spans
from server.db.series.replay import Place, Replayed, replay
from server.db.series.rows import add_points, number, stored
from server.db.series.sealing import HOT_POINTS, ended_unsealed, seal_chunk, seal_points, take_back, unsealed
from server.db.series.sparkline import begun_again, drawn_on

__all__ = [
    "HOT_POINTS",
    "Buckets",
    "Place",
    "Point",
    "Replayed",
    "Thinned",
    "add_points",
    "as_json",
    "begun_again",
    "drawn_on",
    "ended_unsealed",
    "keys_of",
    "number",
    "read_series",
    "replay",
    "seal_chunk",
    "seal_points",
    "spans",
    "stored",
    "take_back",
    "unsealed",
]
