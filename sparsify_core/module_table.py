"""`python -m sparsify_core modules MODEL`: the modules that can be hookpoints, from the model's configuration alone."""

from collections.abc import Sequence

from pydantic import ValidationError

from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.errors import ConfigError
from sparsify_core.flags import FlagParser, explain


def run(argv: Sequence[str]) -> None:
    """Print the model's shape as JSON. Raises ConfigError for wrong usage, ModelError for a model that has none."""
    try:
        config = RunConfig.model_validate(_parser().read(argv))
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    from sparsify_core.capture.shape import model_shape
    from sparsify_core.quiet import quiet_libraries

    quiet_libraries()
    print(model_shape(config.model, config.revision).model_dump_json(indent=1))


def _parser() -> FlagParser:
    return FlagParser(
        [spec for spec in iter_fields(RunConfig) if spec.name in ("model", "revision")],
        prog="python -m sparsify_core modules",
        usage="%(prog)s [MODEL] [--revision REVISION]",
        description="Print the modules of a model with their widths, as JSON; its weights are not read.",
        positional=("model",),
    )
