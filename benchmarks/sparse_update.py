"""Milliseconds of gradients and optimizer step: in one kernel against one after the other, on one CUDA device.

    python benchmarks/sparse_update.py --shapes 4096x131072 --k 64 192

Random rows; latents chosen evenly, or by Zipf's law with one of them on every token. Medians of CUDA events, both
ways in turn. Peak memory is that of the call, on top of weights and state. Also says whether both give the same bits.
"""

import argparse
import statistics
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from sparsify_core.kernels.sparse_grads import sparse_gradients
from sparsify_core.kernels.sparse_update import Adam, Parameter, Signum, sparse_update
from sparsify_core.kernels.update import adam_corrections, adam_update, signum_update

REPEATS = 20
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["4096x131072"], help="width x latents")
    parser.add_argument("--k", nargs="+", type=int, default=[64])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rules", nargs="+", choices=["signum", "adam"], default=["signum", "adam"])
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.tokens} tokens, medians of {REPEATS}")
    for shape, k, name, skewed in product(args.shapes, args.k, args.rules, (False, True)):
        width, num_latents = map(int, shape.split("x"))
        compare(width, num_latents, k, args.tokens, name, skewed=skewed)


def compare(width: int, num_latents: int, k: int, tokens: int, name: str, *, skewed: bool) -> None:
    torch.manual_seed(0)
    device = torch.device("cuda")
    rows = torch.randn(2, tokens, width, device=device, dtype=torch.bfloat16)
    acts = torch.rand(tokens, k, device=device).bfloat16()
    batch = (rows[0], rows[1], acts, choose(tokens, k, num_latents, skewed=skewed))
    parameters = [parameter(shape, name) for shape in ((num_latents, width), (num_latents, width), (num_latents,))]
    rule = Signum(1e-3, 0.1, 0.95) if name == "signum" else Adam(1e-3, adam_corrections(torch.ones((), device=device)))
    scale = torch.full((), -2e-3, device=device)

    def at_once() -> None:
        sparse_update(*batch, *parameters, rule, scale=scale, normalize=True, with_centre=True)

    def in_turn() -> None:
        grads = sparse_gradients(*batch, parameters[0].copy)
        torch.mv(parameters[1].weight.T, grads.b_enc_M)
        for (weight, state, copy), grad in zip(parameters, grads[:3], strict=True):
            step = signum_update if name == "signum" else adam_update
            options = {"scale": scale, "normalize": weight is parameters[0].weight, "copy": copy, **rule._asdict()}
            step(weight, *state, grad, **options)

    equal = ends_equal(parameters, at_once, in_turn)
    figures = [measure(run) for run in (at_once, in_turn, at_once, in_turn)]
    what = f"{width}x{num_latents} k={k} {name:6s} {'zipf' if skewed else 'even'}"
    for label, runs in (("at once", figures[::2]), ("in turn", figures[1::2])):
        times = " / ".join(f"{ms:.2f}" for ms, _ in runs)
        print(f"{what} {label} {times} ms  +{runs[0][1]:.2f} GiB", flush=True)
    print(f"{what} same bits: {equal}", flush=True)


def choose(tokens: int, k: int, num_latents: int, *, skewed: bool) -> Tensor:
    """int32 (tokens, k)."""
    if not skewed:
        return torch.randint(num_latents, (tokens, k), device="cuda", dtype=torch.int32)
    weights = 1 / torch.arange(1, num_latents + 1, device="cuda", dtype=torch.float32)
    shares = weights.cumsum(0) / weights.sum()
    chosen = torch.searchsorted(shares, torch.rand(tokens, k, device="cuda")).clamp_(max=num_latents - 1)
    chosen[:, 0] = num_latents // 2
    return chosen.int()


def parameter(shape: tuple[int, ...], name: str) -> Parameter:
    weight = torch.randn(shape, device="cuda")
    if weight.dim() == 2:
        weight /= weight.norm(dim=1, keepdim=True)
    state = (weight.clone(),) if name == "signum" else (torch.zeros_like(weight), torch.zeros_like(weight))
    return Parameter(weight, state, weight.bfloat16() if weight.dim() == 2 else None)


def ends_equal(parameters: list[Parameter], first: Callable[[], None], second: Callable[[], None]) -> bool:
    """Whether both ways lead from the same weights and state to the same."""
    tensors = [t for weight, state, copy in parameters for t in (weight, *state, copy) if t is not None]
    before = [t.clone() for t in tensors]
    first()
    ends = [t.clone() for t in tensors]
    for t, old in zip(tensors, before, strict=True):
        t.copy_(old)
    del before
    second()
    return all(torch.equal(t, end) for t, end in zip(tensors, ends, strict=True))


def measure(run: Callable[[], None]) -> tuple[float, float]:
    """Median ms, and GiB at the peak above what was there before."""
    for _ in range(WARM_UP):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times), (torch.cuda.max_memory_allocated() - before) / 2**30


if __name__ == "__main__":
    main()
