"""`python -m sparsify_core.probe devices | collectives | tiny FOLDER`."""

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

_PROBES = ("devices", "collectives", "tiny")


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in _PROBES:
        sys.stderr.write(f"usage: python -m sparsify_core.probe {' | '.join(_PROBES)}\n")
        return 2
    probe: Callable[..., dict[str, Any]] = importlib.import_module(f"sparsify_core.probe.{arguments[0]}").probe
    result = probe(*arguments[1:])
    if result:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
