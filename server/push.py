"""`python -m server.push PUSH_ID`: uploads one checkpoint to the Hugging Face Hub and writes down how it ended.

A short process of its own, so that the Hub's client never loads in the server and the token, which comes through
standard input, lives in no other memory, argument list, environment or file.
"""

import json
import logging
import os
import sys
import time
from typing import Any

from server.db.session import Database
from server.db.tables import Checkpoint, HubPush, Run
from server.services import checkpoints
from server.services.card import model_card
from server.settings import Settings, get_settings
from sparsify_core.paths import without_paths

logger = logging.getLogger(__name__)


class PushError(Exception):
    """The upload failed for a reason that the person who started it can do something about."""


def push(settings: Settings, database: Database, push_id: str, token: str) -> str:
    """Upload, and return the address. Raises PushError with one sentence."""
    with database.write() as session:
        row = session.get_one(HubPush, push_id)
        row.pid = os.getpid()
        checkpoint = session.get_one(Checkpoint, row.checkpoint_id)
        run = session.get_one(Run, row.run_id)
    files = _files(settings, row, checkpoint, run)
    return _upload(settings, row, files, f"Checkpoint of step {checkpoint.step}", token)


def _files(settings: Settings, row: HubPush, checkpoint: Checkpoint, run: Run) -> dict[str, Any]:
    """Path in the repository -> local path, or bytes of what must not be sent as it is."""
    folder = checkpoints.directory(settings, checkpoint)
    coders = checkpoints.coders(settings, checkpoint)
    files: dict[str, Any] = {}
    for coder in coders:
        for path in (folder.coder(coder).config, folder.coder(coder).weights):
            files[path.relative_to(folder.root).as_posix()] = path
    for path in (folder.config, folder.evaluation):
        if path.is_file():
            content = without_paths(json.loads(path.read_text(encoding="utf-8")))
            files[path.name] = json.dumps(content, indent=2).encode()
    card = model_card(
        repo_id=row.repo_id,
        name=run.name,
        step=checkpoint.step,
        config=run.config,
        evaluation=checkpoint.evaluation,
        coders=coders,
    )
    return files | {"README.md": card.encode()}


def _upload(settings: Settings, row: HubPush, files: dict[str, Any], message: str, token: str) -> str:
    from httpx2 import HTTPError  # what the Hub's client speaks HTTP with
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=settings.hf_endpoint, token=token)
    try:
        api.create_repo(row.repo_id, private=row.private, exist_ok=True)
        if row.private and not api.repo_info(row.repo_id).private:
            raise PushError(f"{row.repo_id} exists and is public: choose another name, or push it as public.")
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(row.repo_id, operations, commit_message=message)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise PushError(_sentence(status, row.repo_id)) from error
    except FileNotFoundError as error:
        raise PushError("The checkpoint was deleted while it was pushed: push a newer one.") from error
    except (OSError, HTTPError) as error:
        raise PushError(f"The Hub at {settings.hf_endpoint} cannot be reached: {type(error).__name__}.") from error
    return f"{settings.hf_endpoint.rstrip('/')}/{row.repo_id}"


def _sentence(status: int, repo_id: str) -> str:
    match status:
        case 401:
            return "The Hub does not accept the token: make a new one with write access."
        case 403:
            return f"The token may not write to {repo_id}: use one with write access to its owner."
        case 404:
            return f"The Hub does not know {repo_id} or its owner: check the name."
        case 429:
            return "The Hub has had too many requests from this account: try again in some minutes."
        case _:
            return f"The Hub answered with an error (HTTP {status}): try again later."


def _finish(database: Database, push_id: str, **values: Any) -> None:
    with database.write() as session:
        row = session.get_one(HubPush, push_id)
        for name, value in values.items():
            setattr(row, name, value)
        row.finished_at = time.time()


def main() -> int:
    """Exit status 0 when the end, good or bad, is in the database."""
    push_id, token = sys.argv[1], sys.stdin.read().strip()
    settings = get_settings()
    database = Database(settings)
    try:
        url = push(settings, database, push_id, token)
    except PushError as error:
        _finish(database, push_id, state="failed", message=str(error))
    except Exception as error:  # noqa: BLE001 - the process's boundary
        logger.error("push %s failed: %s", push_id, type(error).__name__)  # a message could quote the token's header
        _finish(database, push_id, state="failed", message=f"The upload failed: {type(error).__name__}.")
    else:
        _finish(database, push_id, state="completed", url=url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
