"""Where a webhook may lead: never into the network that the server stands in.

A name is resolved and judged at every connection, and the connection goes to the address that was judged: a name that
leads elsewhere the next time (DNS rebinding) gains nothing.
"""

import ipaddress
import socket
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from server.notices.deadline import LimitedStream

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64: an IPv4 address in the last four bytes."""
_LOCAL = (ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("fec0::/10"))
"""NAT64 and addresses of one's own site, which not every Python knows as such."""


class RefusedError(Exception):
    """The address is one that notices may not be sent to."""


def check_url(url: str, allowed_hosts: Iterable[str]) -> None:
    """Raise RefusedError unless `url` is one that a webhook may have, as far as that shows without the network."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise RefusedError(f"{url} is no URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise RefusedError("give an address that begins with https://")
    if not url.isascii() or not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        raise RefusedError("write the address in ASCII (xn--… in names, %… in paths), with a valid host name")
    if parts.username or parts.password:
        raise RefusedError("an address must not contain a user or a password: they would be shown on pages and in logs")
    if host in allowed_hosts:
        return
    if parts.scheme == "http":
        raise RefusedError(f"use https: {host} is not in SPARSEBOARD_WEBHOOK_HOSTS")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return  # a name: judged when it is resolved
    if not is_public(literal):
        raise RefusedError(_refusal(host, literal))


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address belongs to the internet: not loopback, private, link-local, multicast or reserved, and not
    such an IPv4 address in the clothes of IPv6.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return is_public(inner)
        if any(address in network for network in _LOCAL):
            return False
    return address.is_global and not address.is_multicast


class GuardedBackend(httpcore2.NetworkBackend):
    """Connects to public addresses alone, and to hosts that the deployment allows, for `total_s` seconds in all."""

    def __init__(self, allowed_hosts: Iterable[str], *, total_s: float = 20.0) -> None:
        self._allowed = frozenset(allowed_hosts)
        self._until = time.monotonic() + total_s
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.NetworkStream:
        """Raises RefusedError, or what httpcore raises."""
        stream = self._inner.connect_tcp(self._judged(host, port), port, timeout, local_address, socket_options)
        return LimitedStream(stream, self._until)

    def _judged(self, host: str, port: int) -> str:
        if host in self._allowed:
            return host
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        for address in addresses:
            if not is_public(address):
                raise RefusedError(_refusal(host, address))
        return str(addresses[0])


def _refusal(host: str, address: object) -> str:
    where = host if str(address) == host else f"{host} ({address})"
    return f"{where} is inside the own network: add {host} to SPARSEBOARD_WEBHOOK_HOSTS if that is wanted"
