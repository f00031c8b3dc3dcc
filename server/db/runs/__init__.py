"""The run state machine. Every move is one guarded UPDATE whose row count is checked, and leaves a RunEvent.

`moves` says which there are, `apply` makes them; `requests` is what users ask for, `holder` what the process that has
a run's lease does, `leases` whose devices are whose, `gang`
what the nodes of one attempt tell each other, `queue` who comes next.

`intent` is written by requests alone, `state` by the lease holder and the reaper, or by requests while nobody holds
the run. A holder passes its fence with every write: no row updated means that it has lost the run and must stop.
"""

from server.db.runs.apply import make_move, record, snapshot, storable
from server.db.runs.gang import assigned, end_node, nodes_of, offer_rendezvous, rendezvous_of
from server.db.runs.holder import (
    Orders,
    active,
    claim,
    drain,
    endings_of,
    heartbeat,
    is_unchanged,
    note_first_step,
    note_processes,
    orders,
    release,
    set_supervisor,
)
from server.db.runs.leases import Placement, lift_quarantine, quarantine
from server.db.runs.moves import LEGAL_MOVES
from server.db.runs.queue import (
    lock_queue,
    move_beside,
    move_to_end,
    next_queued,
    queue_due,
    set_priority,
    set_queue_paused,
)
from server.db.runs.requests import request_cancel, request_pause, requeue, resume, state_of

__all__ = [
    "LEGAL_MOVES",
    "Orders",
    "Placement",
    "active",
    "assigned",
    "claim",
    "drain",
    "end_node",
    "endings_of",
    "heartbeat",
    "is_unchanged",
    "lift_quarantine",
    "lock_queue",
    "make_move",
    "move_beside",
    "move_to_end",
    "next_queued",
    "nodes_of",
    "note_first_step",
    "note_processes",
    "offer_rendezvous",
    "orders",
    "quarantine",
    "queue_due",
    "record",
    "release",
    "rendezvous_of",
    "request_cancel",
    "request_pause",
    "requeue",
    "resume",
    "set_priority",
    "set_queue_paused",
    "set_supervisor",
    "snapshot",
    "state_of",
    "storable",
]
