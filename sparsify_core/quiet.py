"""What the libraries around the language model may say while our programs run."""

import logging

import transformers


def quiet_libraries() -> None:
    """Keep reports off the screen that alarm without need."""
    # transformers' report on the missing language-model head, which we leave out on purpose
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # a line for every matrix product of an 8-bit model that is not in float16
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
