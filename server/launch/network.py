"""Where the server listens: only on this machine unless a proxy stands before it, and on a port that is free."""

import errno
import ipaddress
import socket

from server.launch.errors import LaunchError


def check_host(host: str, *, is_behind_proxy: bool) -> None:
    """Raise LaunchError for an address that other machines reach without a proxy that encrypts."""
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local and not is_behind_proxy:
        raise LaunchError(
            f"--host {host} would show Sparseboard unencrypted to other machines: leave it at 127.0.0.1 and use an SSH "
            "tunnel, or put a proxy with TLS before it and say --behind-proxy"
        )


def pick_port(host: str, port: int) -> int:
    """`port` if it is free, any free one for 0. Raises LaunchError when it is taken or may not be used."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LaunchError(
                f"port {port} is used by another program: choose another one, for example --port {port + 1}"
            ) from error
        raise LaunchError(
            f"cannot listen on {host}, port {port} ({error.strerror}): choose others with --host and --port"
        ) from error


def browser_url(host: str, port: int) -> str:
    """The address to open in a browser on this machine."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 compared, not bound
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
