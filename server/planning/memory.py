"""Memory of one process, by what it holds.

Counted from shapes, and compared with the peaks that the benchmarks measured (tests/server/planning). On CUDA coders
train by kernels in bfloat16 (docs/decisions/0010), elsewhere in float32.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from server.planning.job import Job
from sparsify_core.sizes import UPDATE_AT_ONCE_FROM_BYTES, CoderSize

_GROUP = 32
"""Latents of which one maximum is kept beside their pre-activations."""
_CUDA_BYTES = 700 * 2**20
"""What CUDA and its libraries take for themselves, and what the allocator cannot use."""
_LIBRARY_BYTES = 350 * 2**20
"""Of a training process on a CPU: PyTorch and the others."""
_ROWS = 4
"""Tensors as large as a batch's activations that live beside the pre-activations: input, target, residual, decoded."""
_DEAD_SHARE = 0.25
"""Of latents that the AuxK loss may have to look at."""
_LOGITS_BYTES = 2**29
"""Logits are made in pieces of about so much."""
_BESIDE = "cuda"
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STATE_COPIES = {"signum": 1, "muon": 1, "adam": 2}
"""Tensors as large as the weights that the optimizer keeps."""


@dataclass(frozen=True)
class Need:
    """A part of the memory."""

    name: str
    label: str
    num_bytes: float
    help: str


def memory_needs(job: Job) -> list[Need]:
    """The parts, which add up to the peak of the process that has most to train."""
    needs = [
        Need("model", "Language model", _model(job), "Its weights, whole."),
        Need("coders", "Coders", _coders(job), "Weights in float32, and on CUDA their bfloat16 copies."),
        Need("optimizer", "Optimizer", _optimizer(job), "What it keeps for every weight."),
        Need("gradients", "Gradients", _gradients(job), "Of one coder; of all with accumulation or several GPUs."),
        Need("activations", "Activations", _activations(job), "Pre-activations of all latents, and the model's own."),
    ]
    if job.device.is_gpu:
        return [*needs, Need(_BESIDE, "CUDA", _CUDA_BYTES, "Its context and libraries, and what cannot be used.")]
    return [*needs, Need("libraries", "Libraries", _LIBRARY_BYTES, "PyTorch and what it loads.")]


def allocated_bytes(needs: Iterable[Need]) -> float:
    """As PyTorch counts it on a GPU, and the machine on a CPU: what a run's peak is compared with."""
    return sum(need.num_bytes for need in needs if need.name != _BESIDE)


def corrected(needs: Iterable[Need], factor: float) -> list[Need]:
    """As past runs teach; what CUDA takes for itself is not the trainer's, and taught by none."""
    return [need if need.name == _BESIDE else replace(need, num_bytes=factor * need.num_bytes) for need in needs]


def _model_bytes(job: Job) -> int:
    """Of a number of the language model's."""
    if job.config.dtype == "auto":
        return 2 if job.device.is_gpu else 4
    return _BYTES[job.config.dtype]


def _model(job: Job) -> float:
    shape = job.shape
    head = shape.num_head_parameters if job.has_head else 0
    if not job.config.load_in_8bit:
        return float((shape.num_parameters + head) * _model_bytes(job))
    in_layers = job.layer_parameters * shape.num_layers
    return in_layers + (shape.num_parameters + head - in_layers) * 2


def _is_fast(job: Job) -> bool:
    return job.device.is_gpu and job.config.coder_dtype != "float32"


def _coders(job: Job) -> float:
    weights = sum(4 * coder.num_parameters for coder in job.coders)
    keeps_copies = _is_fast(job) and job.config.optimizer != "muon" and job.config.adam_bits == "32"
    return weights + (sum(coder.matrix_bytes / 2 for coder in job.coders) if keeps_copies else 0.0)


def _optimizer(job: Job) -> float:
    copies = _STATE_COPIES[job.config.optimizer]
    share = 1 if job.config.adam_bits == "32" else 0.25
    return sum(4 * copies * share * coder.num_parameters for coder in job.coders)


def _gradients(job: Job) -> float:
    config, coders = job.config, job.coders
    in_parts = config.grad_acc_steps > 1 or (config.micro_acc_steps > 1 and job.is_end_to_end)
    if in_parts or job.is_end_to_end:
        return float(sum(coder.matrix_bytes for coder in coders))
    alive = 2 if job.num_processes > 1 and not config.distribute_modules else 1  # one is on its way
    largest = sorted((_gradient(job, coder) for coder in coders), reverse=True)[:alive]
    return float(sum(largest))


def _gradient(job: Job, coder: CoderSize) -> int:
    config = job.config
    is_simple = not (config.auxk_alpha or config.sae.multi_topk or coder.has_skip or config.upstream_compat)
    at_once = _is_fast(job) and job.num_processes == 1 and is_simple and config.micro_acc_steps == 1
    if at_once and config.optimizer != "muon" and coder.matrix_bytes >= UPDATE_AT_ONCE_FROM_BYTES:
        return 0
    return coder.matrix_bytes


def _activations(job: Job) -> float:
    """The model's residual stream and what a coder needs on top; or what a layer needs, where that is more."""
    width, number = job.shape.hidden_size, _model_bytes(job)
    stream = 2 * job.batch_tokens * width * number
    if job.is_end_to_end:
        # What the backward pass needs of a layer is about that many numbers per token.
        layer_width = 4 * width + job.layer_parameters / (3 * width)
        through = job.batch_tokens * layer_width * number * job.layers_behind
        return stream + through + _LOGITS_BYTES + max(_coder_activations(job, coder) for coder in job.coders)
    layer = job.batch_tokens * (3 * width + job.layer_parameters / (2 * width)) * number
    return stream + max(layer, max(_coder_activations(job, coder) for coder in job.coders))


def _coder_activations(job: Job, coder: CoderSize) -> float:
    tokens, number = job.coder_tokens, 2 if _is_fast(job) else 4
    pre = tokens * coder.num_latents * number * (1 + (1 / _GROUP if _is_fast(job) else 0))
    if job.config.auxk_alpha:
        pre *= 1 + _DEAD_SHARE
    rows = _ROWS + (2 if coder.has_skip else 0)
    return pre + rows * tokens * (coder.d_in + coder.d_out) / 2 * number
