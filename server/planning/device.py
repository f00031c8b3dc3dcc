"""What is trained on: a GPU, or the cores of a machine."""

from dataclasses import dataclass

from sparsify_core.floor import PEAKS, Peak

CPU = "cpu"
"""How the trainer calls it."""

_CORE = Peak(operations=55e9, memory=4e9)
"""One core in float32 at what training reaches, not at its peak: of an AMD EPYC with AVX2."""
_UNKNOWN_GPU = Peak(operations=120e12, memory=0.9e12)
"""Between a T4 and an A100; past runs on the device correct it."""


@dataclass(frozen=True)
class Device:
    """One device as a worker reports it.

    Args:
        name: as CUDA has it, or `cpu`.
        memory_bytes: that one process has to itself; 0: not known.
        cores: of a CPU, that one run has to itself.
    """

    name: str
    memory_bytes: int = 0
    cores: int = 1

    @property
    def is_gpu(self) -> bool:
        return self.name != CPU

    @property
    def is_known(self) -> bool:
        """Whether its rates were measured or published, not guessed."""
        return not self.is_gpu or self.name in PEAKS

    @property
    def peak(self) -> Peak:
        if self.is_gpu:
            return PEAKS.get(self.name, _UNKNOWN_GPU)
        return Peak(_CORE.operations * self.cores, _CORE.memory * self.cores)
