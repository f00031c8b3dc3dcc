"""Shapes of models, read by a short child process, which may load what the server never does, and kept on disk.

Below `models/` in the data folder lies an answer per model, revision and version of transformers.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from server.errors import InvalidError, TooManyRequestsError
from server.services.sources import model_problem
from server.settings import Settings
from sparsify_core.shape import ModelShape

LIMIT_S = 120.0
"""For one child, which loads PyTorch and may ask the Hub."""
_LOOK_AGAIN_S = 0.1
_KEPT_S = 7 * 24 * 3600.0
"""A branch on the Hub may get another configuration."""
_CERTAIN_S = 3600.0
"""Nothing is refused because of what a branch was longer ago."""
_FAILURE_KEPT_S = 20.0
"""So that many who wait for the same model do not all try in turn."""
_FAILURE_TOLD_S = 600.0
"""So that nothing is started again with every letter that is typed beside a model that cannot be read."""
_CHILDREN = threading.BoundedSemaphore(2)
"""Each of them needs half a gigabyte."""
MAX_READERS = 6
"""Threads that may be busy with it or wait; the server has forty, which everything else needs too."""
_READERS = threading.BoundedSemaphore(MAX_READERS)
_REVISION = re.compile(r"\w[\w./-]{0,199}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Answer(BaseModel):
    """What lies on disk: a shape, or why there is none."""

    at: float
    shape: ModelShape | None = None
    failure: str = ""

    def is_fresh(self, failure_kept_s: float) -> bool:
        return time.time() - self.at < (_KEPT_S if self.shape else failure_kept_s)


def shape_of(settings: Settings, model: str, revision: str | None = None) -> ModelShape:
    """The shape of `model`, from the answer on disk or from a child process, which may take a minute.

    Raises:
        InvalidError: the model may not be named, cannot be found, or cannot be built; the message says what to do.
        TooManyRequestsError: other models are being read, or too many wait for this one.
    """
    if message := model_problem(model, settings):
        raise InvalidError.field(("query", "model"), message, "model_not_allowed")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise InvalidError.field(("query", "revision"), f"{revision!r} is no branch, tag or commit", "revision")
    file = answer_file(settings, model, revision)
    answer = _read(file)
    if answer is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with reader(), _alone(file.with_suffix(".lock"), model):
            answer = _read(file) or _ask(settings, model, revision)
            _write(file, answer)
    if answer.shape is None:
        raise InvalidError.field(("query", "model"), answer.failure, "model_error")
    return answer.shape


def known_shape(settings: Settings, model: str, revision: str | None = None) -> ModelShape | None:
    """The shape of `model` if it lies on disk; starts nothing."""
    answer = known_answer(settings, model, revision)
    return answer.shape if answer else None


def certain_shape(settings: Settings, model: str, revision: str | None = None) -> ModelShape | None:
    """The shape of `model` if it lies on disk and cannot have changed since: that of a local model, of a commit on the
    Hub, or of a branch that was read within the hour.
    """
    answer = known_answer(settings, model, revision)
    if answer is None:
        return None
    is_fixed = Path(model).is_absolute() or _COMMIT.fullmatch(revision or "")
    return answer.shape if is_fixed or time.time() - answer.at < _CERTAIN_S else None


def known_answer(settings: Settings, model: str, revision: str | None = None) -> Answer | None:
    """The shape of `model`, or why it could not be read some minutes ago, if that lies on disk; starts nothing."""
    if model_problem(model, settings):
        return None
    return _read(answer_file(settings, model, revision), failure_kept_s=_FAILURE_TOLD_S)


def answer_file(settings: Settings, model: str, revision: str | None = None) -> Path:
    """Where the answer about `model` lies, once there is one."""
    return settings.data_dir / "models" / f"{_key(model, revision)}.json"


def _key(model: str, revision: str | None) -> str:
    """Of a local model its configuration counts too."""
    path = Path(model)
    parts = (model, revision or "", version("transformers"))
    return hashlib.sha256("\0".join(parts).encode() + (_local_config(path) if path.is_absolute() else b"")).hexdigest()


def _local_config(path: Path) -> bytes:
    """What tells that a local model has changed; nothing when there is none."""
    file = path / "config.json" if path.is_dir() else path
    try:
        # A GGUF file is too large to read; nobody rewrites one in place.
        return file.read_bytes() if file.suffix == ".json" else str(file.stat()).encode()
    except OSError:  # the child process, or the trainer, will say what is wrong
        return b""


def _read(file: Path, *, failure_kept_s: float = _FAILURE_KEPT_S) -> Answer | None:
    try:
        answer = Answer.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # missing, or of another version of Sparseboard
        return None
    return answer if answer.is_fresh(failure_kept_s) else None


def _write(file: Path, answer: Answer) -> None:
    whole = file.with_suffix(".new")
    whole.write_text(answer.model_dump_json(), encoding="utf-8")
    whole.replace(file)


@contextmanager
def reader() -> Iterator[None]:
    """Be one of the few threads that may wait. Raises TooManyRequestsError at once where there are enough."""
    if not _READERS.acquire(blocking=False):
        raise _busy()
    try:
        yield
    finally:
        _READERS.release()


def _busy() -> TooManyRequestsError:
    return TooManyRequestsError("Other models are being read: try again in a moment.", retry_after_s=10)


@contextmanager
def _alone(lock: Path, model: str) -> Iterator[None]:
    """One child per model, whatever thread or process asks; the kernel frees the lock of one that dies.

    Raises TooManyRequestsError where somebody keeps it longer than a child may take.
    """
    give_up_at = time.monotonic() + LIMIT_S
    with lock.open("w") as handle:
        while not _is_locked(handle):
            if time.monotonic() > give_up_at:
                message = f"Somebody else has been reading {model} for more than {LIMIT_S:.0f} s: try again in a while."
                raise TooManyRequestsError(message, retry_after_s=60)
            time.sleep(_LOOK_AGAIN_S)
        yield


def _is_locked(handle: IO[str]) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ask(settings: Settings, model: str, revision: str | None) -> Answer:
    if not _CHILDREN.acquire(timeout=LIMIT_S):
        raise _busy()
    try:
        child = subprocess.run(
            [sys.executable, "-m", "sparsify_core", "modules", *_revision_flag(revision), "--", model],
            env=_environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        failure = f"reading the configuration of {model} took more than {LIMIT_S:.0f} s: try again, or copy it here"
        return Answer(at=time.time(), failure=failure)
    finally:
        _CHILDREN.release()
    if child.returncode == 0:
        return Answer(at=time.time(), shape=ModelShape.model_validate_json(child.stdout))
    return Answer(at=time.time(), failure=_failure(model, child.stderr))


def _revision_flag(revision: str | None) -> list[str]:
    return [f"--revision={revision}"] if revision else []


def _environment(settings: Settings) -> dict[str, str]:
    """Ours without what only a server needs; with the token, for models that are not open to all."""
    ours = {n: v for n, v in os.environ.items() if not n.startswith("SPARSEBOARD_") and not n.endswith("_URL")}
    token = {"HF_TOKEN": settings.hf_token.get_secret_value()} if settings.hf_token else {}
    return ours | token | {"HF_ENDPOINT": settings.hf_endpoint, "CUDA_VISIBLE_DEVICES": ""}


def _failure(model: str, stderr: str) -> str:
    """The sentence after `error: `; a defect ends in a traceback, whose last line names it."""
    lines = stderr.strip().splitlines() or ["the process said nothing"]
    for line in lines:
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return f"model {model!r} cannot be read: {lines[-1][:300]}"
