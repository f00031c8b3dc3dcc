"""`python -m sparsify_core kernels`: what runs each operation of a coder on this machine, and why."""

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from sparsify_core import tuned
from sparsify_core.config import RunConfig, SparseCoderConfig, iter_fields, nest
from sparsify_core.config.base import Config, option
from sparsify_core.errors import ConfigError
from sparsify_core.flags import FlagParser, explain

if TYPE_CHECKING:  # torch is imported only to work: --help must not wait for it
    import torch

    from sparsify_core.kernels import tuning

_FIELDS = ("sae.activation", "sae.expansion_factor", "sae.num_latents", "sae.k", "coder_dtype", "device")
"""Fields of a run's configuration on which the answer depends."""


class Workload(Config):
    """What a run's configuration leaves to model and data."""

    d_in: int = option(768, "Sparse coder", unit="inputs", ge=1)
    """Width of the activations that a coder reads."""

    tokens: int = option(32768, "Batching", unit="tokens", ge=1)
    """Tokens in a step of one process: batch_size x ctx_len."""

    tune: bool = option(False, "Compute")
    """Choose the fastest launches now, by running them on random numbers, instead of in the first step of a run."""


class Row(NamedTuple):
    """An operation, what runs it and why, the parameters of its launch and, in milliseconds, what was measured."""

    operation: str
    runs: str
    why: str
    launch: str = ""
    ms: str = ""
    default_ms: str = ""


def run(argv: Sequence[str]) -> None:
    """Print the table. Raises ConfigError for wrong usage."""
    given = nest(_parser().read(argv))
    own = {name: given.pop(name) for name in Workload.model_fields if name in given}
    try:
        workload, config = Workload.model_validate(own), RunConfig.model_validate(given)
        num_latents = config.sae.resolve_num_latents(workload.d_in)
        sae = SparseCoderConfig.model_validate(config.sae.model_dump() | {"num_latents": num_latents})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    from sparsify_core.capture.device import choose_device
    from sparsify_core.kernels.dispatch import choose_coder

    device = choose_device(config.device)
    choice = choose_coder(device, config.coder_dtype)
    if workload.tune:
        if not choice.is_kernel:
            raise ConfigError(f"there is nothing to tune, {choice.why}: leave out --tune")
        tune(device, workload, sae)
    rows = [*kernel_rows(device, workload, sae)] if choice.is_kernel else [Row("all", choice.runs, choice.why)]
    print(_machine(device))
    print(
        f"{workload.tokens:,} tokens of width {workload.d_in:,}, {num_latents:,} latents, {sae.activation}, k = {sae.k}"
    )
    print(f"measured launches: {tuned.path()}", "", *_align(rows), sep="\n")


def kernel_rows(device: "torch.device", workload: Workload, sae: SparseCoderConfig) -> Iterator[Row]:
    """What trains a coder by kernels, in the order of a step."""
    import torch

    from sparsify_core.kernels import decode, dispatch, encode_gemm, topk

    tokens, width, latents, k = workload.tokens, workload.d_in, sae.num_latents, sae.k
    bf16 = torch.bfloat16
    encoder = dispatch.choose_encoder(device, tokens=tokens, latents=latents, width=width)
    space = encode_gemm.launches(tokens, latents, width, bf16) if encoder.is_kernel else None
    yield Row("encode", encoder.runs, encoder.why, *_launch(space, device))
    selection = dispatch.choose_selection(sae.activation, tokens=tokens, latents=latents, k=k)
    space = topk.launches(tokens, latents, k, bf16) if selection.runs == "topk" else None
    yield Row("select", selection.runs, selection.why, *_launch(space, device))
    yield Row("decode, fvu", "decode", "every shape; its sums fix the launch")
    space = decode.launches(tokens, tokens * k, (latents, width), bf16)
    yield Row("decode, else", "decode", "every shape", *_launch(space, device))
    nested = dispatch.choose_nested(sae.activation, tokens=tokens, latents=latents, k=min(4 * k, latents))
    yield Row("multi_topk", nested.runs, nested.why)
    dead = dispatch.choose_dead(min(latents, dispatch.MAX_DEAD))
    yield Row("auxk", dead.runs, dead.why)
    gradient = dispatch.choose_dead_gradient(device, tokens=tokens, width=width)
    yield Row("auxk, gradient", gradient.runs, gradient.why)
    token_loss = dispatch.choose_token_loss(device, bf16)
    yield Row("ce, kl", token_loss.runs, token_loss.why)
    mlp = dispatch.choose_mlp(device, bf16, width=width, features=dispatch.FUSED_MULTIPLE)
    yield Row("the model's MLPs", mlp.runs, mlp.why)
    update = dispatch.choose_update(latents=latents, d_in=width, d_out=width)
    yield Row("gradients, update", update.runs, f"{update.why}; their sums fix the launch")


def tune(device: "torch.device", workload: Workload, sae: SparseCoderConfig) -> None:
    """Launch what is tuned once, on random numbers; what is known is not measured again."""
    import torch

    from sparsify_core.kernels import fast
    from sparsify_core.kernels.decode import decode

    generator = torch.Generator(device).manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.bfloat16)

    x, weight = numbers(workload.tokens, workload.d_in), numbers(sae.num_latents, workload.d_in)
    pre, maxima = fast.encode(x, weight, numbers(sae.num_latents))
    indices, tokens, acts = fast.select(pre, maxima, sae.activation, sae.k)
    if tokens is None:
        decode(acts, indices, weight, numbers(workload.d_in), dtype=torch.float32)


def _launch(space: "tuning.Space | None", device: "torch.device") -> tuple[str, str, str]:
    """Parameters, and what was measured of them and of the default."""
    if space is None:
        return "", "", ""
    from sparsify_core.kernels import tuning

    found = tuning.known(space, device)
    if found is None:
        return f"{_words(space.launches[0])} (default, not yet tuned)", "", ""
    return _words(found.launch), f"{found.ms:.3f}", f"{found.default_ms:.3f}"


def _words(launch: "tuning.Launch") -> str:
    return " ".join(f"{name}={value}" for name, value in launch.items())


def _machine(device: "torch.device") -> str:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    try:
        triton = f"triton {version('triton')}"
    except PackageNotFoundError:
        triton = "no triton"
    return f"{name}, torch {torch.__version__}, {triton}"


def _align(rows: Sequence[Row]) -> Iterator[str]:
    table = [Row("operation", "runs", "why", "launch", "ms", "default ms"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _parser() -> FlagParser:
    return FlagParser(
        [*(spec for spec in iter_fields(RunConfig) if spec.name in _FIELDS), *iter_fields(Workload)],
        prog="python -m sparsify_core kernels",
        usage="%(prog)s [--flag value ...]",
        description="Show what runs each operation of a sparse coder while it trains on this machine, and why.",
    )
