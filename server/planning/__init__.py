"""What a run will need and how fast it will be, before it starts. Pure: no database, no files, no clock, no PyTorch."""

from server.planning.correction import PRIOR, PRIOR_UNKNOWN, Correction, Range, learn
from server.planning.device import Device
from server.planning.disk import cache_bytes, checkpoint_bytes, kept_bytes, most_bytes
from server.planning.fit import ways_to_fit
from server.planning.job import Job, WidthUnknownError, make_job, resolve
from server.planning.memory import Need, allocated_bytes, corrected, memory_needs
from server.planning.speed import Duration, duration, step_times, tokens_per_s
from server.planning.warnings import Fix, Warned, warnings_of

__all__ = [
    "PRIOR",
    "PRIOR_UNKNOWN",
    "Correction",
    "Device",
    "Duration",
    "Fix",
    "Job",
    "Need",
    "Range",
    "Warned",
    "WidthUnknownError",
    "allocated_bytes",
    "cache_bytes",
    "checkpoint_bytes",
    "corrected",
    "duration",
    "kept_bytes",
    "learn",
    "make_job",
    "memory_needs",
    "most_bytes",
    "resolve",
    "step_times",
    "tokens_per_s",
    "warnings_of",
    "ways_to_fit",
]
