"""What the tests of kernels share."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from launches import Launches

torch.set_num_threads(1)


@pytest.fixture
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """`torch.empty` gives NaN, or the largest integer: what a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tuned on a GPU is kept where no other test and no user finds it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Fills while the test runs: which way a call took can be seen here."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    seen = Launches()
    for kind in (InterpretedFunction, JITFunction):

        def run(self: Any, *args: Any, run: Any = kind.run, **kwargs: Any) -> Any:
            seen.append((self.__name__, kwargs))
            return run(self, *args, **kwargs)

        monkeypatch.setattr(kind, "run", run)
    return seen
