"""The run configuration: the one schema behind the command line, the REST API, the browser form and the stored runs."""

from sparsify_core.config.fields import FieldSpec, iter_fields, nest
from sparsify_core.config.run import RunConfig
from sparsify_core.config.sae import SparseCoderConfig
from sparsify_core.config.train import TrainConfig

__all__ = ["FieldSpec", "RunConfig", "SparseCoderConfig", "TrainConfig", "iter_fields", "nest"]
