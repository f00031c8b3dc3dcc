"""Start an attempt from the command line, under torchrun or without it."""

import os

from torch.distributed.elastic.multiprocessing.errors import record

from sparsify_core.config import RunConfig
from sparsify_core.quiet import quiet_libraries
from sparsify_core.rundir import RunDir
from sparsify_core.train.run import next_attempt, run_attempt


def launch(config: RunConfig, run_dir: RunDir, attempt: int | None) -> None:
    """Carry out one attempt; `None` takes the next free number. Raises what ended it."""
    quiet_libraries()
    number = next_attempt(run_dir) if attempt is None else attempt
    # torchrun names the file that the error of the rank which failed first must be written to.
    carry_out = record(run_attempt) if "TORCHELASTIC_ERROR_FILE" in os.environ else run_attempt
    carry_out(config, run_dir, attempt=number)
