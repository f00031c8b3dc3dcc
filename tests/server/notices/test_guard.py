"""Webhooks never lead into the network that the server stands in."""

import ipaddress
import socket
from typing import Any

import httpcore2
import pytest

from server.notices.guard import GuardedBackend, RefusedError, check_url, is_public

INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1",
    "64:ff9b:1::1", "fec0::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_of_the_own_network_are_told(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(RefusedError):
        check_url(f"https://{host}/hook", [])


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_internet_are_told(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "ftp://example.org/", "https://", "https://user:secret@example.org/", "file:///etc/passwd",
     "https://[::1", "nonsense", "https://example.org:port/", 
     "https://ex\u00e4mple.org/", "https://example.org/\u00fc", "https://a..b.org/",
     f"https://{'a' * 64}.org/"],
)  # fmt: skip
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        check_url(url, [])
    assert "secret" not in str(refusal.value)


def test_hosts_of_the_own_network_can_be_allowed() -> None:
    check_url("http://hooks.internal:8080/x", ["hooks.internal"])
    check_url("https://example.org/hook", [])


@pytest.mark.parametrize("addresses", [["10.0.0.7"], ["93.184.216.34", "127.0.0.1"]])
def test_a_name_is_judged_when_it_is_resolved(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may lead anywhere, and one of its addresses inside is enough to refuse it."""
    answers: Any = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(RefusedError, match="inside the own network"):
        GuardedBackend([]).connect_tcp("hooks.example.org", 443, timeout=1)


def test_a_name_that_leads_nowhere_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(httpcore2.ConnectError, match="cannot be resolved"):
        GuardedBackend([]).connect_tcp("nowhere.example.org", 443, timeout=1)
