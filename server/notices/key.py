"""The deployment's own key, from which the keys that sign webhooks are derived. Nothing of them is in the database."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path


def signing_key(data_dir: Path, channel_id: str) -> str:
    """What a channel's notices are signed with: shown once, and the same again whenever it is asked for."""
    return "whsec_" + hmac.new(_deployment_key(data_dir), channel_id.encode(), hashlib.sha256).hexdigest()


def _deployment_key(data_dir: Path) -> bytes:
    """32 bytes from a file that only the owner reads; made at the first use, by whoever comes first."""
    path = data_dir / "notices.key"
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # fails where another process was faster: its key counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()
