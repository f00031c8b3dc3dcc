"""RunConfig: a training run, that is TrainConfig plus model and dataset. THE schema of the product."""

from typing import Literal, Self

from pydantic import model_validator

from sparsify_core.config.base import option
from sparsify_core.config.train import TrainConfig

CONFIG_VERSION = 1
"""Stored beside every saved configuration; raise it together with a migration of old dictionaries."""

LAUNCH_SECTION = "run"
"""Of a configuration file: what Sparseboard is asked for besides, as the run's name. Training leaves it aside."""

GIVEN = "(given)"
"""Stands for a dataset, or a model without a name, that a program handed over: it cannot be found again."""

_SECRETS = {"token", "use_auth_token", "storage_options"}
"""Arguments of load_dataset that carry credentials."""


class RunConfig(TrainConfig):
    """One training run."""

    model: str = option("HuggingFaceTB/SmolLM2-135M", "Model and data", basic=True, min_length=1, max_length=4096)
    """Hugging Face model id, a local folder, or a local .gguf file."""

    dataset: str = option("EleutherAI/SmolLM2-135M-10B", "Model and data", basic=True, min_length=1, max_length=4096)
    """Hugging Face dataset id, a folder written by save_to_disk, a .jsonl, .txt or .parquet file, or a .bin memmap."""

    split: str = option("train", "Model and data", min_length=1, max_length=200, visible_if={"dataset": "!*.bin"})
    """Split of the dataset."""

    memmap_dtype: Literal["uint16", "uint32"] = option("uint16", "Model and data", visible_if={"dataset": "*.bin"})
    """Number format of the token ids in a .bin memmap; uint16 holds vocabularies of up to 65,536 tokens."""

    ctx_len: int = option(2048, "Model and data", unit="tokens", basic=True, ge=2, le=1 << 20)
    """Tokens per sequence."""

    revision: str | None = option(None, "Model and data", max_length=200)
    """Revision of the model: a branch, tag or commit."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "Model and data")
    """Number format of the language model; auto is bfloat16 on CUDA (float16 with load_in_8bit) and float32 on a CPU.
    Weights of coders are float32."""

    load_in_8bit: bool = option(False, "Model and data", visible_if={"device": "!cpu"})
    """Load the language model's matrices in 8 bits; needs CUDA and bitsandbytes. Activations and coders are not."""

    max_examples: int | None = option(None, "Model and data", unit="sequences", ge=1, visible_if={"streaming": "false"})
    """Use at most this many sequences."""

    text_column: str = option("text", "Model and data", min_length=1, max_length=200, visible_if={"dataset": "!*.bin"})
    """Column of the dataset that holds the text."""

    shuffle_seed: int = option(42, "Model and data", ge=0, lt=1 << 32)
    """Seed that shuffles the sequences."""

    data_preprocessing_num_proc: int | None = option(
        None, "Model and data", unit="processes", ge=0, le=1024, visible_if={"dataset": "!*.bin", "streaming": "false"}
    )
    """Processes that tokenize; empty takes half of the cores."""

    data_args: str = option("", "Model and data", max_length=4096, visible_if={"dataset": "!*.bin"})
    """Further arguments of load_dataset, as name=value,name=value."""

    streaming: bool = option(False, "Model and data", visible_if={"dataset": "!*.bin"})
    """Read the dataset from the front instead of downloading and tokenizing it first; needs max_tokens."""

    resume: bool = option(False, "Saving")
    """Continue from the newest checkpoint of the run's folder."""

    @property
    def is_streaming(self) -> bool:
        """Whether the dataset is streamed, by `streaming` or as upstream's users ask for it, in `data_args`."""
        arguments = [part.replace(" ", "").lower() for part in self.data_args.split(",")]
        return self.streaming or "streaming=true" in arguments

    @model_validator(mode="after")
    def _first_tokens_leave_some(self) -> Self:
        if self.exclude_first >= self.ctx_len:
            raise ValueError(f"exclude_first = {self.exclude_first} leaves nothing of ctx_len = {self.ctx_len} tokens")
        return self

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        names = {part.partition("=")[0].strip() for part in self.data_args.split(",")}
        if secret := sorted(names & _SECRETS):
            raise ValueError(
                f"data_args may not hold {secret[0]}, it would be stored with the run: set HF_TOKEN instead"
            )
        return self

    @model_validator(mode="after")
    def _data_fits(self) -> Self:
        if self.memmap_dtype != "uint16" and not self.dataset.endswith(".bin"):
            raise ValueError(f"memmap_dtype = {self.memmap_dtype} is about .bin files, dataset is {self.dataset}")
        if self.is_streaming and self.dataset.endswith(".bin"):
            raise ValueError("streaming is for datasets of text or input_ids: a .bin memmap is never read as a whole")
        if self.is_streaming and self.max_tokens is None:
            raise ValueError("streaming needs max_tokens: the length of a stream is not known")
        if self.is_streaming and self.max_examples is not None:
            raise ValueError("max_examples does not work with streaming: use max_tokens")
        return self

    @model_validator(mode="after")
    def _eight_bits_fit(self) -> Self:
        if self.load_in_8bit and self.device == "cpu":
            raise ValueError("load_in_8bit needs CUDA, not device cpu")
        if self.load_in_8bit and self.model.endswith(".gguf"):
            raise ValueError("load_in_8bit works with safetensors weights, and a .gguf file is unpacked: leave it out")
        return self
