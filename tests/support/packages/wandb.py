"""What of W&B's package the trainer calls, writing every call as a JSON line to the file WANDB_CALLS.

WANDB_REFUSES makes `init` fail, WANDB_FAILS_AT the logging of that step.
"""

import json
import os
from typing import Any


def _note(call: str, **arguments: Any) -> None:
    with open(os.environ["WANDB_CALLS"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"call": call, **arguments}) + "\n")


class Run:
    def log(self, data: dict[str, float], *, step: int) -> None:
        if step == int(os.environ.get("WANDB_FAILS_AT", "-1")):
            raise ConnectionError("the network is gone")
        _note("log", data=data, step=step)

    def finish(self, *, exit_code: int) -> None:
        _note("finish", exit_code=exit_code)


def init(**arguments: Any) -> Run:
    if "WANDB_REFUSES" in os.environ:
        raise RuntimeError("api_key not configured")
    _note("init", arguments=arguments)
    return Run()
