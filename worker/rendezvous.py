"""Where the torchruns of a run on several nodes meet."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sparsify_core.torchrun import meeting_at

_JOIN_TIMEOUT_S = 600


@dataclass(frozen=True)
class Rendezvous:
    """One node's part of it."""

    endpoint: str
    """`host:port` of the leader's store."""
    name: str
    """The same for all nodes of an attempt, and for no other attempt."""
    num_nodes: int
    address: str
    """Where the other nodes reach this one."""
    is_host: bool
    """Whether this node's torchrun keeps the store."""

    @property
    def options(self) -> list[str]:
        """For torchrun's command line. It counts the nodes itself, in an order of its own: rank 0 may be on any."""
        return [
            *meeting_at(self.endpoint, self.name, num_nodes=self.num_nodes),
            *("--max-restarts", "0", "--local-addr", self.address),
            *("--rdzv-conf", f"is_host={int(self.is_host)},join_timeout={_JOIN_TIMEOUT_S}"),
        ]


def own_address(configured: str, hosts: Sequence[str]) -> str:
    """Where the nodes on `hosts` reach this one: as configured, by its name, or on the machine that all share."""
    if configured:
        return configured
    return "127.0.0.1" if len(set(hosts)) == 1 else socket.gethostname()


def free_endpoint(address: str) -> str:
    """`address:port` with a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{address}:{probe.getsockname()[1]}"
