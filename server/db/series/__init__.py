"""Series of metrics at rest, and read at the resolution that a chart wants."""

from server.db.series.buckets import Buckets, Point
from server.db.series.reading import Thinned, read_series

__all__ = ["Buckets", "Point", "Thinned", "read_series"]
