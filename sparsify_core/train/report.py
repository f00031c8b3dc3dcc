"""What a run tells the world: events for programs, lines for people. Rank 0 speaks, the others are silent."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from sparsify_core.events import Event, EventWriter, Metrics, Phase, Warned
from sparsify_core.train.sinks import Sinks

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 0.5


class Reporter:
    """Writes to an event file, or nowhere when `writer` is None (ranks other than 0).

    `step` is the last step that metrics were reported for. `pulse` is the file that `beat` touches.
    """

    def __init__(self, writer: EventWriter | None, pulse: Path) -> None:
        self._writer = writer
        self._pulse = pulse
        self._sinks = Sinks({})
        self._last_line = 0.0
        self.step = 0

    def log_to(self, sinks: Sinks) -> None:
        """Send the metrics there too, from now on."""
        self._sinks = sinks

    def close(self, *, failed: bool) -> None:
        """Finish the sinks, then the event file."""
        self._sinks.close(failed=failed)
        if self._writer is not None:
            self._writer.close()

    def beat(self) -> None:
        """Training gets on. The first call says that it has begun."""
        if self._writer is not None:
            self._pulse.touch()

    def event(self, event: Event) -> None:
        if self._writer is not None:
            self._writer.write(event)

    def phase(self, name: str, step: int = 0, detail: str = "") -> None:
        self.event(Phase(name=name, step=step, detail=detail))
        self._say("%s", f"{name}: {detail}" if detail else name)

    def warn(self, message: str, step: int = 0) -> None:
        self.event(Warned(message=message, step=step))
        self._say("warning: %s", message)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        self.event(Metrics(step=step, values=dict(values)))
        for problem in self._sinks.log(step, values):
            self.warn(problem, step)

    def progress(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """A line at most every half second, and always for the last step."""
        now = time.monotonic()
        if now - self._last_line < _LINE_INTERVAL_S and step < total:
            return
        self._last_line = now
        fvu = next((v for name, v in values.items() if name.startswith("fvu/")), float("nan"))
        loss = "".join(f"  {name} {values[name]:.4f}" for name in ("ce_loss", "kl_loss") if name in values)
        rate, tokens = values["tokens_per_s"], values["tokens"]
        eta_s = (total - step) * tokens / step / rate if rate else 0.0
        self._say("step %d/%d%s  fvu %.4f  %.0f tok/s  ETA %s", step, total, loss, fvu, rate, duration(eta_s))

    def evaluated(self, step: int, values: Mapping[str, float]) -> None:
        """A line per coder."""
        for name, value in values.items():
            if name.startswith("eval_fvu/"):
                self._say("step %d  held-out fvu %.4f  %s", step, value, name.removeprefix("eval_fvu/"))

    def _say(self, message: str, *values: object) -> None:
        if self._writer is not None:
            logger.info(message, *values)


def duration(seconds: float) -> str:
    """`3m05s`, `2h07m`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
