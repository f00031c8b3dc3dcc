"""Pushes of checkpoints to the Hugging Face Hub. A process of its own does the upload and alone sees the token."""

import os
import re
import subprocess
import sys
import threading
import time

import psutil
from pydantic import SecretStr
from sqlalchemy import update
from sqlmodel import Session, col, select

from server.db.runs import record
from server.db.session import Database, after_commit
from server.db.tables import HubPush
from server.errors import ConflictError, InvalidError
from server.services.checkpoints import directory, get_checkpoint
from server.services.lookup import get_row
from server.settings import Settings

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
    "HF_HUB_DISABLE_XET",
)


def start_push(
    session: Session,
    checkpoint_id: str,
    *,
    settings: Settings,
    repo_id: str,
    private: bool = True,
    token: SecretStr | None = None,
    actor: str,
) -> HubPush:
    """Start the upload of a checkpoint once this is committed.

    Raises:
        NotFoundError: there is no such checkpoint, or its files are gone.
        InvalidError: `repo_id` is not `owner/name`, or there is no token.
        ConflictError: the same checkpoint is being pushed there already.
    """
    checkpoint = get_checkpoint(session, checkpoint_id)
    directory(settings, checkpoint)
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id or repo_id.endswith((".git", ".", "-")):
        raise InvalidError.field(("repo_id",), "Write the repository as owner/name.", "repo_id")
    chosen = token if token and token.get_secret_value() else settings.hf_token
    if chosen is None or not _TOKEN.fullmatch(chosen.get_secret_value()):
        message = "Type a Hugging Face token with write access, or set HF_TOKEN where Sparseboard starts."
        raise InvalidError.field(("token",), message, "token")
    if any(p.state == "running" and p.repo_id == repo_id for p in list_pushes(session, checkpoint_id)):
        raise ConflictError(f"This checkpoint is being pushed to {repo_id} already.")
    push = HubPush(checkpoint_id=checkpoint.id, run_id=checkpoint.run_id, repo_id=repo_id, private=private)
    session.add(push)
    record(session, checkpoint.run_id, actor=actor, kind="push", detail=f"step {checkpoint.step} to {repo_id}")
    after_commit(session, lambda: spawn(settings, push.id, chosen))
    return push


def list_pushes(session: Session, checkpoint_id: str | None = None) -> list[HubPush]:
    """Pushes of a checkpoint, or the newest hundred of all; newest first."""
    statement = select(HubPush).order_by(col(HubPush.created_at).desc(), col(HubPush.id).desc()).limit(100)
    if checkpoint_id is not None:
        statement = statement.where(HubPush.checkpoint_id == checkpoint_id)
    return list(session.exec(statement))


def get_push(session: Session, push_id: str) -> HubPush:
    """Raises NotFoundError."""
    return get_row(session, HubPush, push_id, "push")


def spawn(settings: Settings, push_id: str, token: SecretStr) -> None:
    """Start the pushing process. The token goes through its standard input; argv has the push's id alone."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {
        "SPARSEBOARD_DATA_DIR": str(settings.data_dir),
        "DATABASE_URL": settings.resolved_database_url,
        "HF_ENDPOINT": settings.hf_endpoint,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "server.push", push_id],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    secret = token.get_secret_value().encode()
    threading.Thread(target=_attend, args=(process, secret, settings, push_id), daemon=True).start()


def _attend(process: subprocess.Popen[bytes], secret: bytes, settings: Settings, push_id: str) -> None:
    """Hand over the token, wait, and write down an end that the process could not write down itself."""
    process.communicate(secret)
    if process.returncode != 0:
        with Database(settings).write() as session:
            _fail(session, [push_id])


def fail_interrupted(session: Session, before: float) -> int:
    """Mark pushes from before that time whose process is gone as failed. Returns how many there were.

    Args:
        before: Unix seconds; a push that began later may not have told yet which process it is.
    """
    begun = select(HubPush).where(HubPush.state == "running", col(HubPush.created_at) < before)
    running = session.exec(begun).all()
    dead = [push.id for push in running if not _is_pushing(push)]
    _fail(session, dead)
    return len(dead)


def _fail(session: Session, push_ids: list[str]) -> None:
    running = update(HubPush).where(col(HubPush.id).in_(push_ids), col(HubPush.state) == "running")
    message = "The upload was interrupted: push again."
    session.execute(running.values(state="failed", message=message, finished_at=time.time()))


def _is_pushing(push: HubPush) -> bool:
    try:
        return push.pid > 0 and push.id in psutil.Process(push.pid).cmdline()
    except psutil.Error:
        return False
