"""Sealed series. Rows of `metric_point` are their hot end; both index what lies in the event files."""

from sqlalchemy import Index
from sqlmodel import Field, SQLModel


class MetricChunk(SQLModel, table=True):
    """Sealed points of one series and attempt, at one resolution. A chunk has one row for each of its resolutions, and
    is never changed; when a newer attempt takes some of its points back, another chunk takes its place.
    """

    __tablename__ = "metric_chunk"
    __table_args__ = (Index("ix_metric_chunk_run_id_attempt_last_seq", "run_id", "attempt", "last_seq"),)

    run_id: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    key: str = Field(primary_key=True, max_length=400)
    level: int = Field(primary_key=True)
    """Buckets are 2^level steps wide; level 0 has the points themselves."""
    attempt: int = Field(primary_key=True)
    first_seq: int = Field(primary_key=True)
    last_seq: int
    first_step: int
    last_step: int
    below: int
    """Widths from 2^level up to, but without, 2^below are read from this row."""
    num_points: int
    data: bytes
    """As `server.db.series.packing` has it. The last column: rows are looked through without reading it."""
