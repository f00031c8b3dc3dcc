"""How a kernel is launched: the parameters that change how fast it is, and not a bit of what it gives.

The fastest are found on the first launch of a shape, by timing them on what is there to be computed. That takes
milliseconds, and seconds where Triton has yet to compile them. What changes the order in which numbers are added is
never chosen here: a run would not resume to the bit.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
import triton
from triton import knobs
from triton.runtime.errors import OutOfResources, PTXASError

from sparsify_core import tuned
from sparsify_core.tuned import Tuned

Launch = Mapping[str, int]
"""Parameters of a kernel and of Triton (num_warps, num_stages), by name."""

_ROUNDS = 5
_WORTH = 0.98
"""Share of the default's time that a better launch must stay below; less is noise."""


class Space(NamedTuple):
    """The launches among which one is chosen, the default first; `key` names the operation, shape and number format."""

    key: str
    launches: Sequence[Launch]


def choose(space: Space, device: torch.device, run: Callable[[Launch], object]) -> Launch:
    """The fastest launch on CUDA; the default everywhere else and in the interpreter.

    Args:
        run: launches the kernel. It is called again and again, so it must overwrite its output and nothing else.
    """
    if device.type != "cuda" or knobs.runtime.interpret:
        return space.launches[0]
    found = known(space, device)
    if found is None:
        found = _measure(space.launches, run)
        name = _name(space, device)
        _chosen[name] = found
        tuned.write(name, found)
    return found.launch


def known(space: Space, device: torch.device) -> Tuned | None:
    """What was chosen earlier, in this process or in another one; None where nothing was."""
    if device.type != "cuda":
        return None
    name = _name(space, device)
    if name not in _chosen:
        found = tuned.read(name)
        if found is None or found.launch not in space.launches:
            return None
        _chosen[name] = found
    return _chosen[name]


_chosen: dict[str, Tuned] = {}


def _name(space: Space, device: torch.device) -> str:
    return f"{_machine(device)}, {space.key}"


@cache
def _machine(device: torch.device) -> str:
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, triton {triton.__version__}"


def _measure(launches: Sequence[Launch], run: Callable[[Launch], object]) -> Tuned:
    """Time all of them in turn, so that a clock that falls meanwhile slows each alike."""
    fitting = [launch for launch in launches if launch is launches[0] or _fits(launch, run)]
    run(launches[0])
    events: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in fitting]
    for _ in range(_ROUNDS):
        for launch, own in zip(fitting, events, strict=True):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run(launch)
            end.record()
            own.append((start, end))
    torch.cuda.synchronize()
    times_ms = [statistics.median(start.elapsed_time(end) for start, end in own) for own in events]
    best = min(range(len(fitting)), key=times_ms.__getitem__)
    if times_ms[best] > _WORTH * times_ms[0]:
        best = 0
    return Tuned(launch=dict(fitting[best]), ms=times_ms[best], default_ms=times_ms[0])


def _fits(launch: Launch, run: Callable[[Launch], object]) -> bool:
    """Whether Triton can compile it for the device, which has the registers and the shared memory."""
    try:
        run(launch)
    except (OutOfResources, PTXASError, RuntimeError):  # the last is what a failed pass of Triton's compiler raises
        return False
    return True


def round_up(size: int) -> int:
    """To a power of two: batches whose sizes wander from step to step are tuned for once."""
    return 1 << max(size - 1, 0).bit_length()
