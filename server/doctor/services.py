"""Checks of what Sparseboard stores in and talks to. None of them makes or changes anything."""

import os
import subprocess
import time
from pathlib import Path

import psutil
from sqlalchemy.exc import SQLAlchemyError

from server.db.migrate import revisions
from server.db.session import Database
from server.doctor.finding import Finding, fail, ok, warn
from server.launch.broker import binary
from server.launch.errors import LaunchError
from server.launch.lock import holder
from server.launch.prepare import check_space
from server.numbers import size
from server.queue import redis_client_url
from server.services.health import DEAF_S, LOW_DISK_BYTES, consumer_age_s
from server.services.workers import is_alive, list_workers
from server.settings import Settings

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "glusterfs", "fuse.glusterfs")


def disk(settings: Settings) -> Finding:
    """Room, rights, and a file system that SQLite can lock files on."""
    folder = _existing(settings.data_dir)
    if not os.access(folder, os.W_OK):
        return fail(f"{folder} cannot be written", "choose another folder with --data-dir, or change its owner")
    try:
        check_space(folder)
    except LaunchError as error:
        return fail(str(error), "free some space")
    free = psutil.disk_usage(str(folder)).free
    kind = _file_system(folder)
    if kind in _NETWORK and not settings.database_url:
        return fail(f"{folder} is on {kind}, where SQLite's locks do not hold", "use a local disk, or set DATABASE_URL")
    sentence = f"{size(free)} free on the disk of {settings.data_dir}"
    if free < LOW_DISK_BYTES:
        return warn(sentence, "runs pause when a checkpoint does not fit: free some space")
    return ok(sentence)


def database(settings: Settings) -> Finding:
    """Can it be reached, and would it let us write?"""
    kind = "PostgreSQL" if settings.database_url.startswith("postgres") else "SQLite"
    if _is_missing(settings):
        return warn("there is none yet", "`sparseboard up` makes it")
    opened = Database(settings)
    started_at = time.monotonic()
    try:
        with opened.write() as session:
            session.connection()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        return fail(f"{kind} does not answer: {reason}", "start it, and compare DATABASE_URL with its address")
    finally:
        opened.engine.dispose()
    return ok(f"{kind} answers within {(time.monotonic() - started_at) * 1000:.0f} ms")


def migrations(settings: Settings) -> Finding:
    """Are the tables those of this version?"""
    if _is_missing(settings):
        return warn("there are no tables yet", "`sparseboard up` makes them")
    try:
        current, newest = revisions(settings)
    except SQLAlchemyError:
        return fail("not known: the database does not answer", "see there")
    if current == newest:
        return ok(f"the tables are up to date ({newest})")
    return fail(f"the tables are at {current or 'nothing'}, this version needs {newest}", "run `sparseboard migrate`")


def broker(settings: Settings) -> Finding:
    """Does it answer? The embedded one: could it be started?"""
    if not settings.redis_url:
        done = subprocess.run([binary(), "--version"], capture_output=True, text=True, timeout=20)
        if done.returncode != 0:
            return fail("the embedded broker does not start on this machine", "set REDIS_URL to a Redis server")
        return ok(f"embedded: {' '.join(done.stdout.split()[:3])}")
    from redis import Redis, RedisError

    try:
        with Redis.from_url(redis_client_url(settings.redis_url), socket_timeout=3, socket_connect_timeout=3) as client:
            client.ping()
    except (RedisError, OSError) as error:
        return fail(f"it does not answer: {error}", "start it, and compare REDIS_URL with its address and password")
    return ok("it answers")


def worker(settings: Settings) -> Finding:
    """Is somebody there to train, and does he hear?"""
    if _is_missing(settings):
        return warn("none has ever run here", "`sparseboard up` starts one")
    opened = Database(settings)
    try:
        with opened.read() as session:
            alive = [row for row in list_workers(session) if is_alive(row)]
    except SQLAlchemyError:
        return warn("not known: the database does not answer, or its tables are not up to date", "see there")
    finally:
        opened.engine.dispose()
    if not alive:
        advice = (
            "`sparseboard up` starts one" if not holder(settings.data_dir) else "see the folder logs in the data folder"
        )
        return warn("none is connected: runs stay queued", advice)
    deaf = [row.name for row in alive if consumer_age_s(row) > DEAF_S]
    if deaf:
        return warn(f"{', '.join(deaf)} takes no messages from the broker", "restart it; training goes on")
    return ok(f"connected: {', '.join(row.name for row in alive)}")


def hub_token(settings: Settings) -> Finding:
    """Does the Hub take it?"""
    if settings.hf_token is None:
        return warn("none is set: gated models cannot be read", "set HF_TOKEN, or type a token at each push")
    from httpx2 import HTTPError  # what the Hub's client speaks HTTP with
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        name = HfApi(endpoint=settings.hf_endpoint, token=settings.hf_token.get_secret_value()).whoami()["name"]
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            return fail(f"{settings.hf_endpoint} does not accept it", "make a new one and put it into HF_TOKEN")
        return warn(f"{settings.hf_endpoint} answered with HTTP {status}", "try again later")
    except (OSError, HTTPError) as error:
        return warn(f"{settings.hf_endpoint} cannot be reached: {type(error).__name__}", "local models work without it")
    return ok(f"it is that of {name}")


def _existing(folder: Path) -> Path:
    """The folder, or what would hold it once it is made."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _file_system(folder: Path) -> str:
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _is_missing(settings: Settings) -> bool:
    """Connecting to a SQLite database would make it."""
    return not settings.database_url and not (settings.data_dir / "sparseboard.db").exists()
