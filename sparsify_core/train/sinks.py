"""Copies of a run's metrics for Weights & Biases and TensorBoard.

The event file (sparsify_core.events) stays the run's log. Keys are those of sparsify_core.metrics, a step is an
optimizer step. Only rank 0 has sinks, and none of them can end the training.
"""

import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from sparsify_core.config import RunConfig
from sparsify_core.errors import ConfigError
from sparsify_core.paths import without_paths
from sparsify_core.rundir import RunDir

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Somewhere to send metrics to. Its methods may raise whatever the library behind it raises."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class Sinks:
    """The sinks of a run, by the flag that asked for them."""

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)

    def log(self, step: int, values: Mapping[str, float]) -> Iterator[str]:
        """Send to all. Yields a sentence for each sink that failed and is switched off."""
        for flag, sink in [*self._sinks.items()]:
            try:
                sink.log(step, values)
            except Exception as error:
                # Another library's boundary: neither its network nor its bugs may cost the training.
                logger.exception("%s failed", flag)
                del self._sinks[flag]
                yield f"{flag} failed at step {step} and is switched off for the rest of this attempt: {_first(error)}"

    def close(self, *, failed: bool) -> None:
        """Finish all of them; `failed`: the attempt did."""
        while self._sinks:
            flag, sink = self._sinks.popitem()
            try:
                sink.close(failed=failed)
            except Exception:  # see log
                logger.exception("%s could not be closed", flag)


def check_packages(config: RunConfig) -> None:
    """Raise ConfigError when a package is missing that the configuration needs; nothing of it is started."""
    if config.log_to_wandb:
        _module("wandb", flag="log_to_wandb")
    if config.log_to_tensorboard:
        _module("tensorboardX", flag="log_to_tensorboard")


def open_sinks(config: RunConfig, run_dir: RunDir, *, attempt: int, first_step: int) -> Sinks:
    """Open what the configuration asks for. Raises ConfigError when that is impossible.

    Args:
        first_step: the last step of the checkpoint that is resumed, or 0.
    """
    sinks: dict[str, Sink] = {}
    if config.log_to_tensorboard:
        sinks["log_to_tensorboard"] = _TensorBoard(run_dir, attempt, first_step)
    if config.log_to_wandb:
        try:
            sinks["log_to_wandb"] = _WandB(config, run_dir)
        except Exception as error:
            Sinks(sinks).close(failed=True)
            logger.exception("W&B could not be started")
            raise ConfigError(
                f"log_to_wandb: W&B cannot be started ({_first(error)}): run `wandb login` or set WANDB_API_KEY, set "
                "WANDB_MODE=offline, or leave log_to_wandb out"
            ) from error
    return Sinks(sinks)


class _TensorBoard:
    def __init__(self, run_dir: RunDir, attempt: int, first_step: int) -> None:
        writer: Any = _module("tensorboardX", flag="log_to_tensorboard").SummaryWriter
        # What an interrupted attempt logged behind its checkpoint is hidden: curves do not double.
        self._writer = writer(
            str(run_dir.tensorboard), purge_step=first_step + 1, filename_suffix=f".{attempt:04d}", flush_secs=10
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class _WandB:
    """One W&B run per attempt, as W&B takes no step twice. It is given no token: the library finds its own."""

    def __init__(self, config: RunConfig, run_dir: RunDir) -> None:
        self._every = config.wandb_log_frequency
        self._run: Any = _module("wandb", flag="log_to_wandb").init(
            project=os.environ.get("WANDB_PROJECT", "sparsify"),
            entity=os.environ.get("WANDB_ENTITY"),
            name=config.run_name,
            config=without_paths(config.model_dump(mode="json")),
            dir=str(run_dir.root),
            settings={"console": "off"},  # the attempt's log file has it, and so has the event file
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        # Held-out numbers come with checkpoints only, and all of them are sent.
        due = {key: v for key, v in values.items() if step % self._every == 0 or key.startswith("eval_")}
        if due:
            self._run.log(due, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _module(name: str, *, flag: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = None
    # W&B leaves folders of its own name behind, which Python takes for packages.
    if module is None or module.__file__ is None:
        raise ConfigError(f"{flag} needs the package {name}: pip install {name}, or leave {flag} out")
    return module


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
