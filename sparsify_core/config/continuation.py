"""Which options may differ between a checkpoint and a run that goes on behind it."""

from collections.abc import Mapping
from typing import Any

SAME_WEIGHTS = frozenset(
    {
        *(
            "adam_bits",
            "cache_activations",
            "resume",
            "nan_policy",
            "finetune",
            "finetune_state",
            "run_name",
            "save_dir",
        ),
        *("eval_every", "eval_downstream", "save_every", "save_best", "keep_last"),
        *("device", "compile_model", "data_preprocessing_num_proc"),
        *("log_every", "waterfall_every", "log_to_tensorboard", "log_to_wandb", "wandb_log_frequency"),
    }
)
"""They do not influence what the weights become, so that a run may be resumed with others; what adam_bits comes to is
compared by the optimizer."""

FORKABLE = SAME_WEIGHTS | {
    *("lr", "lr_warmup_steps", "auxk_alpha", "dead_feature_threshold", "sae.k", "sae.multi_topk", "k_decay_steps"),
    *("num_epochs", "exclude_tokens", "exclude_special_tokens", "exclude_first", "micro_acc_steps", "coder_dtype"),
}
"""A fork may change these too, and keep the optimizer's state and its place in the data. Not max_tokens: how much of a
text is tokenized, and so the order of the sequences and which are held out, depends on it."""


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """`{"sae": {"k": 8}}` -> `{"sae.k": 8}`."""
    own = {name: value for name, value in config.items() if name != "sae"}
    return own | {f"sae.{name}": value for name, value in config["sae"].items()}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Dotted names of the options that differ; one that `before` does not know yet has not been changed."""
    old, new = flat(before), flat(after)
    return [name for name, value in new.items() if old.get(name, value) != value]
