"""Processes that end with the one that started them. Torch-free: the launcher and the supervisor use it too."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None] | None:
    """What a child does before exec so that the kernel ends it (SIGTERM) with the caller (Linux; elsewhere nothing).

    Give it to `Popen(preexec_fn=...)` in a process of one thread; the signal comes when the creating thread ends.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child must not
    parent = os.getpid()

    def request() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return request
