"""The command that starts training. Torch-free: workers run it, plans show it."""

import shlex
from collections.abc import Sequence

STANDALONE = ("--standalone",)


def torchrun_command(
    python: str, arguments: Sequence[str], *, num_processes: int, options: Sequence[str] = STANDALONE
) -> list[str]:
    """torchrun with the trainer, `num_processes` times on this machine.

    Args:
        python: the interpreter.
        arguments: of `python -m sparsify_core`.
        options: of torchrun: how the nodes meet, where its files go.
    """
    launch = [python, "-m", "torch.distributed.run", *options, "--nproc_per_node", str(num_processes)]
    return [*launch, "-m", "sparsify_core", *arguments]


def meeting_at(endpoint: str, name: str, *, num_nodes: int) -> list[str]:
    """torchrun's options by which nodes find one another.

    Args:
        endpoint: `host:port` of the one that keeps the store.
        name: the same for all nodes, and for nothing else that meets there.
    """
    return ["--nnodes", str(num_nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", name]


def options_to_fill_in(num_nodes: int) -> Sequence[str]:
    """For a command that is shown: HOST stands for the name of one of several nodes, RUN for the run's id."""
    return meeting_at("HOST:29400", "RUN", num_nodes=num_nodes) if num_nodes > 1 else STANDALONE


def as_text(command: Sequence[str]) -> str:
    """For a shell, a flag with its values on each line."""
    lines: list[list[str]] = [[]]
    for word in command:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)
