"""Whether a run trains well: rules that look at its series, its evaluation and its configuration.

Pure: no database, no settings. Every rule takes an `Evidence` and answers with a `Finding` or None.
"""

from server.diagnosis.checks import CHECKS, SERIES, Check, Result, State, diagnose
from server.diagnosis.evidence import Evidence, Line
from server.diagnosis.finding import Finding, Severity

__all__ = ["CHECKS", "SERIES", "Check", "Evidence", "Finding", "Line", "Result", "Severity", "State", "diagnose"]
