"""What the libraries around the language model may say while our programs run."""

import logging
import sys

import transformers
from datasets.utils.tqdm import disable_progress_bars


def quiet_libraries() -> None:
    """Keep reports off the screen that alarm without need, and progress bars out of log files."""
    # transformers' report on the missing language-model head, which we leave out on purpose
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # a line for every matrix product of an 8-bit model that is not in float16
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not sys.stderr.isatty():  # progress bars fill a log file with carriage returns
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        disable_progress_bars()
