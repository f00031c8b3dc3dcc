"""One configuration in other notations: a YAML file, a command line, a request to the API; and back from the first two.

`RunConfig` -> text -> the same `RunConfig`, to the bit, or the text is refused.
"""

from server.services.notation.command_line import from_command, to_command
from server.services.notation.reading import NotationError, Reading
from server.services.notation.request import to_fork_request, to_request, to_sweep_request
from server.services.notation.yaml_file import from_yaml, to_yaml

__all__ = [
    "NotationError",
    "Reading",
    "from_command",
    "from_yaml",
    "to_command",
    "to_fork_request",
    "to_request",
    "to_sweep_request",
    "to_yaml",
]
