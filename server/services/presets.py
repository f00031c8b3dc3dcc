"""Filled-in configurations to start from."""

from typing import Any

from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.demo import MODEL_NAME, TEXT_NAME


def demo_config(settings: Settings) -> dict[str, Any] | None:
    """The demo: a small real model and text that set-up put into the data folder; None while they are not there."""
    model, text = settings.demo_dir / MODEL_NAME, settings.demo_dir / TEXT_NAME
    if not (model.is_dir() and text.is_file()):
        return None
    config = RunConfig.model_validate(
        {
            "model": str(model),
            "dataset": str(text),
            "hookpoints": ["layers.5"],
            "sae": {"k": 32, "expansion_factor": 8},
            "exclude_first": 1,
            "ctx_len": 256,
            "batch_size": 8,
            "optimizer": "adam",
            "lr": 2e-3,
            "lr_warmup_steps": 10,
            "max_tokens": 409_600,
            "eval_tokens": 8192,
            "save_every": 100,
            "keep_last": 2,
            "log_every": 1,
        }
    )
    return config.model_dump(mode="json")
