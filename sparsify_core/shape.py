"""The shape of a language model: its modules with their widths. Torch-free: forms and plans are made of it."""

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ModuleShape(_Model):
    """One module below the base model."""

    path: str
    """Its name, as hookpoint patterns match it."""

    kind: str
    """Name of its class."""

    d_in: int | None
    """Width of what it takes for every token; null where that is no vector per token, so that it cannot be learned, or
    where the model's widths are not known."""

    d_out: int | None
    """Width of what it gives for every token; likewise."""

    num_parameters: int
    """Of itself and of all modules below it."""


class ModelShape(_Model):
    """A language model without its weights."""

    architecture: str
    """Its `model_type`, for example llama."""

    layers: str | None
    """Path of its list of layers; null where that cannot be told."""

    num_layers: int
    hidden_size: int
    vocab_size: int

    num_parameters: int
    """Of the base model, on which SAEs are trained."""

    num_head_parameters: int
    """What the head adds, where the loss or the evaluation needs predictions; 0 where it shares the embedding's."""

    knows_widths: bool
    """Whether the forward that notes widths came to its end without numbers; that of a mixture of experts does not,
    because numbers choose the experts. Then a width that is null is not known."""

    modules: list[ModuleShape]
    """In the model's order."""
