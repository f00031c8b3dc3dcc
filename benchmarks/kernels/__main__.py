"""Each kernel against PyTorch: milliseconds, and what it reaches of the device's arithmetic or memory.

python -m benchmarks.kernels                          # all, on the coders of W1, W2 and W3
python -m benchmarks.kernels topk decode --shapes W3-k192
TRITON_INTERPRET=1 python -m benchmarks.kernels --shapes tiny --repeats 1    # tries them on a CPU
"""

import argparse
import gc
import importlib
import traceback

import torch

from benchmarks.kernels.case import SHAPES, Case, Inputs
from benchmarks.tables import Table, table
from benchmarks.timing import time_calls

OPERATIONS = [
    "activated_gemm",
    "moments",
    "encode_gemm",
    "maxima",
    "topk",
    "groupmax",
    "batchtopk",
    "decode",
    "decode_nested",
    "by_latent",
    "sparse_grads",
    "keep",
    "masked_gemm",
    "dead_error",
    "token_loss",
    "muon_average",
    "update",
    "sparse_update",
]
_COLUMNS = ["kernel", "what", "shape", "ours ms", "reference ms", "reference", "speed-up", "reached"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(OPERATIONS)}; all")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["W1", "W2", "W3"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if unknown := sorted({*args.operations} - {*OPERATIONS}):
        parser.error(f"no kernel is called {', '.join(unknown)}: choose of {', '.join(OPERATIONS)}")
    with table("Kernels", _COLUMNS) as rows:
        for shape in args.shapes:
            inputs = Inputs(SHAPES[shape], args.device)
            for operation in args.operations or OPERATIONS:
                try:
                    measure(operation, inputs, args.repeats, rows)
                except Exception:  # noqa: BLE001 - the other kernels are still worth the machine's time
                    traceback.print_exc()
                    rows.add_failure(operation, "", shape)
            del inputs
            free()


def measure(operation: str, inputs: Inputs, repeats: int, rows: Table) -> None:
    """Add a row for each case of `operation`."""
    for case in importlib.import_module(f"benchmarks.kernels.{operation}").cases(inputs):
        warm_up = min(3, repeats - 1)
        ours = time_calls(case.ours, repeats=repeats, warm_up=warm_up)
        reference = time_calls(case.reference, repeats=max(1, repeats // 2), warm_up=warm_up)
        rows.add(
            operation,
            case.name,
            inputs.shape.name,
            ours,
            reference,
            case.reference_name,
            f"{reference.median / ours.median:.1f}×",
            reached(case, ours.median),
        )
        free()


def reached(case: Case, ms: float) -> str:
    """TFLOP/s, or TB/s of what has to be moved."""
    return f"{case.flops / ms / 1e9:,.0f} TFLOP/s" if case.flops else f"{case.moved_bytes / ms / 1e9:.2f} TB/s"


def free() -> None:
    """What the last operation took."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
