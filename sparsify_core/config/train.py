"""TrainConfig: how to train; upstream's TrainConfig, field for field, plus what Sparseboard adds."""

from typing import Literal, Self

from pydantic import field_validator, model_validator

from sparsify_core.config.base import Config, option
from sparsify_core.config.sae import SparseCoderConfig
from sparsify_core.hookpoints import pattern_problem


class TrainConfig(Config):
    """Training of one or many sparse coders in one pass over the data."""

    sae: SparseCoderConfig = SparseCoderConfig()

    hookpoints: list[str] = option([], "Hookpoints", basic=True, max_length=1000)
    """Glob patterns of module names below the base model, e.g. layers.5 or layers.*.mlp; empty means all layers."""

    layers: list[int] = option([], "Hookpoints", max_length=1000, visible_if={"hookpoints": ""})
    """Indices of layers to train on; an alternative to hookpoints."""

    layer_stride: int = option(1, "Hookpoints", ge=1, le=1000, visible_if={"layers": ""})
    """Use every n-th of the resolved hookpoints."""

    init_seeds: list[int] = option([0], "Hookpoints", min_length=1, max_length=64)
    """Seeds of the random initialization; several train one coder per hookpoint and seed."""

    loss_fn: Literal["fvu", "ce", "kl"] = option("fvu", "Loss")
    """Reconstruct activations (fvu), or the model's predictions end to end (ce, kl)."""

    auxk_alpha: float = option(0.0, "Loss", ge=0, le=1e6, visible_if={"loss_fn": "fvu"})
    """Weight of the AuxK loss that revives dead latents; 1/32 is usual, 0 switches it off."""

    dead_feature_threshold: int = option(10_000_000, "Loss", unit="tokens", ge=1)
    """A latent counts as dead after this many tokens without firing."""

    k_decay_steps: int = option(0, "Loss", unit="batches", ge=0)
    """Start with a much larger k and lower it linearly to k over this many batches; groupmax takes the next k that
    divides the number of latents."""

    exclude_tokens: list[int] = option([], "Loss", max_length=100_000)
    """Token ids whose positions are left out of training and evaluation."""

    exclude_special_tokens: bool = option(False, "Loss")
    """Also leave out the tokenizer's BOS, EOS and PAD tokens, whose activations are outliers in most models."""

    exclude_first: int = option(0, "Loss", unit="tokens", basic=True, ge=0, le=1024)
    """Leave out the first n positions of every sequence; position 0 is an attention sink in most models."""

    optimizer: Literal["adam", "muon", "signum"] = option("signum", "Optimizer", basic=True)
    """Optimizer of the sparse coders; signum is schedule-free."""

    lr: float | None = option(None, "Optimizer", basic=True, gt=0, le=100)
    """Learning rate; empty derives it from the number of latents."""

    lr_warmup_steps: int = option(1000, "Optimizer", unit="steps", ge=0, visible_if={"optimizer": "adam|muon"})
    """Linear warmup of adam, and of the biases' adam under muon."""

    adam_bits: Literal["auto", "8", "32"] = option("32", "Optimizer", visible_if={"optimizer": "adam"})
    """Bits of adam's state; auto takes 8 on CUDA where bitsandbytes is installed, as sparsify does, else 32."""

    nan_policy: Literal["fail", "rollback"] = option("fail", "Optimizer")
    """What follows a loss that is NaN or infinite: the run fails, or goes back to its last checkpoint once, which helps
    against a fault that does not come again. The bare command line ends in both cases: --resume goes back."""

    batch_size: int = option(32, "Batching", unit="sequences", basic=True, ge=1, le=65_536)
    """Sequences per forward pass and process."""

    grad_acc_steps: int = option(1, "Batching", unit="batches", ge=1, le=65_536)
    """Batches per optimizer step."""

    micro_acc_steps: int = option(1, "Batching", unit="chunks", ge=1, le=65_536)
    """Chunks that a batch is cut into for the coders, to save memory; end to end (ce, kl) for the model too."""

    num_epochs: int = option(1, "Batching", unit="epochs", ge=1, le=1000)
    """Passes over the training data, each in another order; max_tokens may end the last one early."""

    max_tokens: int | None = option(None, "Batching", unit="tokens", basic=True, ge=1)
    """Stop after this many training tokens; empty uses num_epochs times the whole dataset."""

    eval_tokens: int = option(16_384, "Evaluation", unit="tokens", ge=0, le=1 << 24)
    """Tokens held out of training for evaluation and the look at latents; 0: neither."""

    eval_every: int = option(0, "Evaluation", unit="steps", ge=0, visible_if={"eval_tokens": "!0"})
    """Optimizer steps between evaluations, beside those at checkpoints; 0: at checkpoints only."""

    eval_downstream: bool = option(False, "Evaluation", visible_if={"eval_tokens": "!0"})
    """Also measure what splicing the reconstructions in does to the model's predictions; loads the model with its
    head."""

    save_every: int = option(1000, "Saving", unit="steps", basic=True, ge=1)
    """Optimizer steps between checkpoints; the last step is always saved."""

    save_best: bool = option(False, "Saving", visible_if={"eval_tokens": "!0"})
    """Keep the checkpoint with the lowest loss whatever keep_last says."""

    keep_last: int = option(2, "Saving", unit="checkpoints", ge=1, le=10_000)
    """Checkpoints to keep; older ones are deleted."""

    finetune: str | None = option(None, "Saving", max_length=4096)
    """Start from the sparse coders in this checkpoint folder, or in this repository (owner/name) of the Hub."""

    finetune_state: bool = option(False, "Saving", visible_if={"finetune": "!"})
    """Take the optimizer's state, the dead latents' counters, the step and the place in the data from finetune too, and
    go on behind it: a fork. Options that these depend on must be the checkpoint's."""

    run_name: str | None = option(None, "Saving", max_length=200)
    """Name of the run; without a server also its folder below save_dir."""

    save_dir: str = option("checkpoints", "Saving", min_length=1, max_length=4096)
    """Folder of the runs of the bare command line; under Sparseboard every run has its own."""

    distribute_modules: bool = option(False, "Compute", visible_if={"loss_fn": "fvu"})
    """Give each process its own hookpoints to train on all data, instead of all of them on its part of the data."""

    upstream_compat: bool = option(False, "Compute")
    """Learn as EleutherAI's sparsify 1.3.3 does where that differs: gradients also reach latents that the ReLU cut off,
    which count as firing; AuxK and Multi-TopK train the decoder alone; warmup starts at a learning rate of 0."""

    coder_dtype: Literal["auto", "float32", "bfloat16"] = option("auto", "Compute")
    """Number format in which coders multiply while they train; auto is bfloat16 on CUDA, by Triton kernels, and float32
    on a CPU. Weights, sums and evaluation are float32."""

    compile_model: Literal["auto", "on", "off"] = option("auto", "Compute")
    """Compile the language model's layers (torch.compile) and fuse its MLPs by a kernel, where there is one. That takes
    a while at the start; auto does it on CUDA."""

    cache_activations: str | None = option(
        None, "Compute", min_length=1, max_length=4096, visible_if={"loss_fn": "fvu"}
    )
    """Folder of activations on disk: those that fit are read instead of running the language model, missing ones are
    written first, after a look at the room they take. Under Sparseboard a name, shared by all runs that give it."""

    device: Literal["auto", "cpu", "cuda"] = option("auto", "Compute")
    """Device to train on; auto takes CUDA where there is one."""

    log_every: int = option(1, "Logging", unit="steps", ge=1)
    """Optimizer steps between two points of the charts."""

    waterfall_every: int = option(50, "Logging", unit="steps", ge=0)
    """Optimizer steps between two measurements of where a step's time goes, the first one once training is warm; 0:
    none."""

    log_to_tensorboard: bool = option(False, "Logging")
    """Also write TensorBoard files into the run's folder; its event file (JSON lines) is written in any case."""

    log_to_wandb: bool = option(False, "Logging")
    """Also log to Weights & Biases, into the project WANDB_PROJECT; the login is that of its own package."""

    wandb_log_frequency: int = option(1, "Logging", unit="steps", ge=1, visible_if={"log_to_wandb": "true"})
    """Optimizer steps between two Weights & Biases records, a multiple of log_every; 1 sends every point."""

    @field_validator("hookpoints")
    @classmethod
    def _may_match(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            if problem := pattern_problem(pattern):
                raise ValueError(f"{pattern!r} matches no module: {problem}")
        return patterns

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.layers and self.hookpoints:
            raise ValueError("give either layers or hookpoints, not both")
        if self.layers and self.layer_stride != 1:
            raise ValueError("layer_stride applies to hookpoints, not to an explicit list of layers")
        if any(layer < 0 for layer in self.layers):
            raise ValueError(f"layers must be 0 or more, got {min(self.layers)}")
        if len(set(self.init_seeds)) != len(self.init_seeds):
            raise ValueError(f"init_seeds must differ from each other, got {self.init_seeds}")
        if any(not pattern.strip() for pattern in self.hookpoints):
            raise ValueError("a hookpoint pattern is empty: remove it or write a module name")
        if self.save_best and not self.eval_tokens:
            raise ValueError("save_best compares held-out FVU: set eval_tokens to more than 0")
        if self.eval_every and not self.eval_tokens:
            raise ValueError("eval_every needs held-out tokens: set eval_tokens to more than 0")
        if self.eval_downstream and not self.eval_tokens:
            raise ValueError("eval_downstream needs held-out tokens: set eval_tokens to more than 0")
        if self.adam_bits != "32" and self.optimizer != "adam":
            raise ValueError(f"adam_bits = {self.adam_bits} is about optimizer adam, not {self.optimizer}")
        if self.adam_bits == "8" and self.device == "cpu":
            raise ValueError("adam_bits = 8 needs CUDA, not device cpu: set adam_bits to 32")
        if self.wandb_log_frequency > 1 and not self.log_to_wandb:
            raise ValueError(f"wandb_log_frequency = {self.wandb_log_frequency} has no effect without log_to_wandb")
        if self.wandb_log_frequency > 1 and self.wandb_log_frequency % self.log_every:
            raise ValueError(
                f"wandb_log_frequency = {self.wandb_log_frequency} must be a multiple of log_every = {self.log_every}"
            )
        if self.upstream_compat and self.sae.activation == "batchtopk":
            raise ValueError("upstream_compat learns as sparsify does, which has no batchtopk: use another activation")
        if self.finetune_state and self.finetune is None:
            raise ValueError("finetune_state needs finetune: the checkpoint folder to go on behind")
        if self.loss_fn != "fvu" and self.distribute_modules:
            raise ValueError(f"distribute_modules works with loss_fn fvu, not {self.loss_fn}")
        if self.loss_fn != "fvu" and self.cache_activations is not None:
            raise ValueError(
                f"cache_activations works with loss_fn fvu, not {self.loss_fn}, which trains through the model"
            )
        if self.loss_fn != "fvu" and self.auxk_alpha:
            raise ValueError(f"auxk_alpha works with loss_fn fvu, not {self.loss_fn}: set it to 0")
        if self.loss_fn != "fvu" and self.sae.multi_topk:
            raise ValueError(f"multi_topk works with loss_fn fvu, not {self.loss_fn}: switch it off")
        return self
