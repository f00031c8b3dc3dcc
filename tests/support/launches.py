"""What Triton was told to launch."""

from typing import Any


class Launches(list[tuple[str, dict[str, Any]]]):
    """Names and keyword arguments of the kernels that Triton launched, in order."""

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self]

    def only(self, name: str) -> dict[str, Any]:
        """The arguments of the one launch of this kernel."""
        (arguments,) = (arguments for launched, arguments in self if launched == name)
        return arguments
