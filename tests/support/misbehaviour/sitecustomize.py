"""On PYTHONPATH, makes the training processes of a test do what TORCH_TEST_FAULT says; the product knows none of it.

(The name of the variable begins as it must to be handed on to them.)
"""

import os
import threading
from pathlib import Path

FLOOD_BYTES = 40 << 20


def flood() -> None:
    """Bytes that are no text, terminal codes, and a line of ten megabytes, all the time."""
    shreds = b"\x1b[31m\x00\xff\xfe" * 1000 + b"\n"
    os.write(1, b"first words\n")
    sent = os.write(1, b"x" * (10 << 20) + b"\n")
    while sent < FLOOD_BYTES:
        sent += os.write(1, shreds)


def nan_once(mark: Path) -> None:
    """The loss of the eighth step is not a number, unless `mark` says that it was so before."""
    if mark.exists():
        return
    from sparsify_core.train import step

    original, calls = step.StepSums.finish, []

    def poison(self: step.StepSums) -> object:
        calls.append(1)
        stats, scale = original(self)
        if len(calls) == 8:
            mark.touch()
            stats = stats._replace(fvu=stats.fvu * float("nan"))
        return stats, scale

    step.StepSums.finish = poison  # type: ignore[method-assign,assignment]


fault, _, argument = os.environ.get("TORCH_TEST_FAULT", "").partition(":")
if "RANK" in os.environ and fault:
    match fault:
        case "flood":
            threading.Thread(target=flood, daemon=True).start()
        case "nan":
            nan_once(Path(argument))
        case "die":
            os._exit(3)
