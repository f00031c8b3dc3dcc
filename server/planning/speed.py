"""How long a step and a run take.

The floor of a step (`sparsify_core.floor`), divided by what share of it the trainer reaches, as the benchmarks measured
it on an H100 (benchmarks/results). Past runs on the same device correct the rest: `planning.correction`.
"""

from dataclasses import dataclass

from server.planning.job import Job
from sparsify_core.floor import ADAM_8_BIT_BYTES, STATE_BYTES, Floor, widening
from sparsify_core.parts import Part

_REACHED: dict[Part, float] = {"lm": 0.52, "encode": 0.84, "decode": 0.9, "backward": 0.5, "optimizer": 0.85}
"""Share of the device's peak rate. A CPU's rates are such as are reached."""
_SELECT_SHARE = 0.4
"""Of the memory traffic of reading all pre-activations once: selecting reads maxima of groups."""
_HEAD_PASSES = 3
_BACK_PASSES = 2
"""The way back through a layer, and its activations made again, in forward passes."""
_LONG = 16
"""Matrices of this ratio of their sides on are iterated by Muon on their Gram matrix (sparsify_core.train.muon)."""
_DEAD_SHARE = 0.15
"""Of latents that the AuxK loss is about, in the middle of a run."""
_DEVICE_S = 0.0005
_DEVICE_CODER_S = 0.0001
"""Of small things in a step, and for each coder, however small they are."""
_HOST_S = 0.001
_HOST_LAYER_S = 0.001
_HOST_CODER_S = 0.002
"""What it takes Python to launch a step, a layer of the language model, and a coder's part: a GPU that is done sooner
waits. Measured on an H100 with batches of 32 times 512 tokens through a model of 135M parameters."""
_LINK_BYTES_PER_S = 330e9
_LINK_CPU_BYTES_PER_S = 1.5e9
"""Between processes: NVLink on one host, and shared memory of a CPU."""
_DISK_BYTES_PER_S = 0.4e9
_START_S = 12.0
_START_GPU_S = 60.0
"""Until the first step: libraries, model, tokens; on a GPU compilation too."""
_EVALUATION_SHARE = 0.6
"""A token's share of a training token's time when it is evaluated: there is no way back and no update."""


@dataclass(frozen=True)
class Duration:
    """Seconds of a run by phase."""

    start_s: float
    caching_s: float
    training_s: float
    evaluation_s: float
    saving_s: float

    @property
    def varying_s(self) -> float:
        """What goes by the speed of training."""
        return self.training_s + self.evaluation_s

    @property
    def total_s(self) -> float:
        return self.start_s + self.caching_s + self.training_s + self.evaluation_s + self.saving_s


def step_times(job: Job) -> dict[Part, float]:
    """Seconds of an optimizer step by part."""
    config, peak = job.config, job.device.peak
    lm_operations = 0.0 if config.cache_activations else config.grad_acc_steps * _lm_operations(job)
    tokens = config.grad_acc_steps * config.micro_acc_steps * job.coder_tokens
    floor = Floor(peak, lm_operations, tokens, _state_bytes(job), widening(config.sae))
    found = {part: ms / 1e3 / _reached(job, part) for part, ms in floor.milliseconds(job.coders).items()}
    number = 2 if job.device.is_gpu else 4
    latents = sum(coder.num_latents for coder in job.coders)
    found["select"] = _SELECT_SHARE * tokens * latents * number / peak.memory
    if config.auxk_alpha:
        dead = sum(5 * 2 * tokens * _DEAD_SHARE * c.num_latents * (c.d_in + c.d_out) / 2 for c in job.coders)
        found["decode"] += dead / peak.operations
    if config.optimizer == "muon":
        found["optimizer"] += _muon_operations(job) / peak.operations / _reached(job, "encode")
    if job.num_processes > 1:
        found["communication"] = _sent_bytes(job) / (_LINK_BYTES_PER_S if job.device.is_gpu else _LINK_CPU_BYTES_PER_S)
    found["other"] = _DEVICE_S + _DEVICE_CODER_S * len(job.coders) + 0.02 * sum(found.values())
    if job.device.is_gpu:
        found["other"] += max(0.0, _launching_s(job) - sum(found.values()))
    return found


def _launching_s(job: Job) -> float:
    """Of a step: what the device does not have to wait for if it is busy for as long."""
    layers = 0 if job.config.cache_activations else job.layers_run * job.config.grad_acc_steps
    coders = len(job.coders) * job.config.grad_acc_steps * job.config.micro_acc_steps
    return _HOST_S + _HOST_LAYER_S * layers + _HOST_CODER_S * coders


def tokens_per_s(job: Job) -> float:
    """Of the language model's tokens, all processes together, without a correction."""
    return job.tokens_per_step / sum(step_times(job).values())


def duration(job: Job, tokens_per_s: float, checkpoint_bytes: float) -> Duration | None:
    """Of what the run has to do at this speed; None where its length is not known."""
    if job.num_tokens is None or not job.steps_left:
        return None
    config = job.config
    num_evaluations = job.num_saves + (job.num_times(config.eval_every) if config.eval_every else 0)
    evaluated = config.eval_tokens * (num_evaluations if config.eval_tokens else 0)
    downstream = 1 + 2 * len(job.all_coders) if config.eval_downstream else 1
    alone = tokens_per_s / job.num_processes
    lm_s = _lm_operations(job) / job.batch_tokens / job.device.peak.operations / _reached(job, "lm")
    return Duration(
        start_s=_START_GPU_S if job.device.is_gpu else _START_S,
        caching_s=job.num_tokens / config.num_epochs * lm_s / job.num_processes if config.cache_activations else 0.0,
        training_s=job.steps_left * job.tokens_per_step / tokens_per_s,
        evaluation_s=_EVALUATION_SHARE * downstream * evaluated / alone,
        saving_s=job.num_saves * checkpoint_bytes / _DISK_BYTES_PER_S,
    )


def _reached(job: Job, part: Part) -> float:
    return _REACHED.get(part, 1.0) if job.device.is_gpu else 1.0


def _lm_operations(job: Job) -> float:
    """Of one batch of one process, and end to end of what goes back through the model."""
    length, tokens = job.config.ctx_len, job.config.batch_size * job.config.ctx_len
    per_layer = 2 * job.layer_parameters + 2 * length * job.shape.hidden_size  # attention sees half of the sequence
    layers: float = job.layers_run
    if not job.is_end_to_end:
        return tokens * per_layer * layers
    layers += _BACK_PASSES * job.layers_behind
    head: float = _HEAD_PASSES * 2 * job.shape.vocab_size * job.shape.hidden_size
    if job.config.loss_fn == "kl":  # what the model itself predicts
        layers += job.layers_behind
        head *= (_HEAD_PASSES + 1) / _HEAD_PASSES
    return tokens * (per_layer * layers + head)


def _state_bytes(job: Job) -> int:
    is_8_bit = job.config.optimizer == "adam" and job.config.adam_bits == "8"
    return ADAM_8_BIT_BYTES if is_8_bit else STATE_BYTES[job.config.optimizer]


def _muon_operations(job: Job) -> float:
    """Of its iterations, by the counts that stand in sparsify_core.train.muon."""
    total = 0.0
    for coder in job.coders:
        for width in (coder.d_in, coder.d_out):
            short, long = sorted((coder.num_latents, width))
            is_long = long >= _LONG * short
            total += short**2 * (5.5 * long + 84 * short if is_long else 20 * long + 10 * short)
    return total


def _sent_bytes(job: Job) -> float:
    """That one process gets from the others in a step."""
    if not job.config.distribute_modules:
        return float(sum(coder.matrix_bytes for coder in job.coders))
    number = 2 if job.device.is_gpu else 4
    return sum(job.coder_tokens * job.config.micro_acc_steps * c.d_out * number for c in job.coders)
