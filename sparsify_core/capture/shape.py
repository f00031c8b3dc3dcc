"""The shape of a model from its configuration alone: built on the meta device, where nothing has weights."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from sparsify_core.capture.hookpoints import layer_list
from sparsify_core.capture.load import LOAD_ERRORS, check_path, load_failure, model_source
from sparsify_core.capture.readout import PROBE_ERRORS
from sparsify_core.capture.rows import first_input, first_output, token_rows
from sparsify_core.errors import HookpointError, ModelError
from sparsify_core.shape import ModelShape, ModuleShape

Widths = dict[str, tuple[int | None, int | None]]


def model_shape(name: str, revision: str | None = None) -> ModelShape:
    """The modules of the base model `name` (see `RunConfig.model`), without reading its weights.

    Raises ModelError when its configuration cannot be found, or is of no architecture that can be built.
    """
    import transformers  # slow to import, and --help must be instant

    check_path(name)
    builder: Any = transformers.AutoModel
    try:
        config = transformers.AutoConfig.from_pretrained(
            **model_source(name), revision=revision, trust_remote_code=False
        )
        with torch.device("meta"):
            # Eager attention takes a mask as it is; other kinds look into it, and there is nothing to see here.
            model = builder.from_config(config, attn_implementation="eager", trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ModelError(load_failure("model", name, error)) from error
    text_config = config.get_text_config()
    layers = None
    with suppress(HookpointError):
        layers, _ = layer_list(model)
    widths, knows_widths = _widths(model)
    head = 0 if text_config.tie_word_embeddings else text_config.vocab_size * text_config.hidden_size
    return ModelShape(
        architecture=config.model_type,
        layers=layers,
        num_layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        vocab_size=text_config.vocab_size,
        num_parameters=model.num_parameters(),
        num_head_parameters=head,
        knows_widths=knows_widths,
        modules=_modules(model, widths),
    )


def _modules(model: nn.Module, widths: Widths) -> list[ModuleShape]:
    return [
        ModuleShape(
            path=path,
            kind=type(module).__name__,
            d_in=widths.get(path, (None, None))[0],
            d_out=widths.get(path, (None, None))[1],
            num_parameters=sum(p.numel() for p in module.parameters()),
        )
        for path, module in model.named_modules()
        if path
    ]


def _widths(model: nn.Module) -> tuple[Widths, bool]:
    """Input and output width of every module that a forward on four tokens has gone through, and whether it came to its
    end.
    """
    ids = torch.zeros(1, 4, dtype=torch.int64, device="meta")
    with _noting(model) as widths:
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        except PROBE_ERRORS:
            return widths, False
    return widths, True


@contextmanager
def _noting(model: nn.Module) -> Iterator[Widths]:
    """As the trainer's hooks see modules: at their first call."""
    widths: Widths = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            widths.setdefault(path, (_width(first_input(args, kwargs)), _width(first_output(output))))

        return hook

    handles = [m.register_forward_hook(note(path), with_kwargs=True) for path, m in model.named_modules()]
    try:
        yield widths
    finally:
        for handle in handles:
            handle.remove()


def _width(value: Any) -> int | None:
    try:
        return token_rows(value, "", "").shape[-1]
    except HookpointError:
        return None
