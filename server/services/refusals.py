"""What keeps a run whose fields are right from the queue: what it names, and what its trainer would refuse."""

from functools import cache

from server import planning
from server.errors import FieldProblem, InvalidError
from server.services.model_shapes import certain_shape
from server.services.requests import RunRequest
from server.services.sources import source_problems
from server.settings import Settings
from sparsify_core.errors import ConfigError, HookpointError


class Refusals:
    """Checks runs against what lies on disk now; each model is looked at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shape = cache(lambda *model: certain_shape(settings, *model))

    def of(self, request: RunRequest) -> list[FieldProblem]:
        """What is wrong with the model, the dataset and, where the model's modules are certain, with the hookpoints and
        coders; nothing else is opened.
        """
        return source_problems(request.config, self._settings) or self._of_trainer(request)

    def _of_trainer(self, request: RunRequest) -> list[FieldProblem]:
        config = request.config
        shape = self._shape(config.model, config.revision)
        if shape is None:
            return []
        try:
            planning.resolve(config, shape, num_processes=request.num_processes * request.num_nodes)
        except planning.WidthUnknownError:
            return []
        except HookpointError as error:
            name = "layers" if config.layers else "hookpoints"
            return [FieldProblem(("config", name), str(error), "hookpoint_error")]
        except ConfigError as error:
            return [FieldProblem(("config",), str(error), "config_error")]
        return []


def refuse(request: RunRequest, settings: Settings) -> None:
    """Raises InvalidError, which names every field that is wrong."""
    if problems := Refusals(settings).of(request):
        raise InvalidError(problems[0].msg, errors=problems)
