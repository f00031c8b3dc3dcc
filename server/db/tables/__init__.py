"""All tables.

Times are Unix seconds (float, UTC): they sort, subtract and cross SQLite and Postgres without surprises.
"""

import server.db.tables.columns  # noqa: F401 - names the constraints of all tables
from server.db.states import ACTIVE, TERMINAL, WAITING, Intent, RunState
from server.db.tables.access import ApiToken, BrowserSession, IdempotencyKey, LoginCode
from server.db.tables.columns import ProcessIdentity
from server.db.tables.fleet import DeviceLease, LeaseState, QueueState, Worker, WorkerSample, WorkerState
from server.db.tables.notices import Channel, Delivery, WatchHit, WatchRule
from server.db.tables.prediction import Prediction
from server.db.tables.preset import Preset
from server.db.tables.results import Checkpoint, HubPush, MetricPoint, StepTiming
from server.db.tables.run import Attempt, AttemptNode, Run, RunEvent
from server.db.tables.series import MetricChunk
from server.db.tables.sweep import Sweep
from server.db.tables.values import RunValue
from server.db.tables.views import SavedView

__all__ = [
    "ACTIVE",
    "TERMINAL",
    "WAITING",
    "ApiToken",
    "Attempt",
    "AttemptNode",
    "BrowserSession",
    "Channel",
    "Checkpoint",
    "Delivery",
    "DeviceLease",
    "HubPush",
    "IdempotencyKey",
    "Intent",
    "LeaseState",
    "LoginCode",
    "MetricChunk",
    "MetricPoint",
    "Prediction",
    "Preset",
    "ProcessIdentity",
    "QueueState",
    "Run",
    "RunEvent",
    "RunState",
    "RunValue",
    "SavedView",
    "StepTiming",
    "Sweep",
    "WatchHit",
    "WatchRule",
    "Worker",
    "WorkerSample",
    "WorkerState",
]
