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


def as_text(command: Sequence[str]) -> str:
    """For a shell, a flag with its values on each line."""
    lines: list[list[str]] = [[]]
    for word in command:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)
