"""Configurations for programs written against upstream, under its names and with its positional `sae`."""

from functools import partial
from typing import Any

from sparsify_core.config import sae as coders
from sparsify_core.config import train

SparseCoderConfig = SaeConfig = coders.SparseCoderConfig
TranscoderConfig = partial(coders.SparseCoderConfig, transcode=True)


class TrainConfig(train.TrainConfig):
    """`TrainConfig(SaeConfig(...), batch_size=16)`."""

    def __init__(self, sae: coders.SparseCoderConfig, **values: Any) -> None:
        super().__init__(sae=sae, **values)
