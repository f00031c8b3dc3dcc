"""Errors that a user can cause. Every message says what was wrong, the value, and what to do."""


class SparsifyError(Exception):
    """Root of all errors caused by input or environment, never by a defect of the program.

    `code` is a stable machine-readable reason; it ends up as the run's `reason_code`.
    """

    code = "error"


class ConfigError(SparsifyError):
    """A configuration value is wrong or does not fit another one."""

    code = "config_error"


class ModelError(SparsifyError):
    """The language model cannot be found or loaded."""

    code = "model_error"


class DataError(SparsifyError):
    """The dataset cannot be found, read, or has nothing to train on."""

    code = "data_error"


class HookpointError(SparsifyError):
    """A hookpoint pattern matches no module, or a module that cannot be hooked."""

    code = "hookpoint_error"


class CheckpointError(SparsifyError):
    """A checkpoint is missing, damaged, or does not fit the run."""

    code = "checkpoint_error"


class NonFiniteLossError(SparsifyError):
    """The loss became NaN or infinite."""

    code = "non_finite_loss"


class DiskFullError(SparsifyError):
    """There is not enough disk space to write what must be written."""

    code = "disk_full"


class GpuMemoryError(SparsifyError):
    """The GPU has not enough memory."""

    code = "gpu_out_of_memory"


class DeviceError(SparsifyError):
    """The GPU or its driver reported an error: what was computed since is lost."""

    code = "cuda_error"


class CommunicationError(SparsifyError):
    """The training processes lost touch with each other: most often because one of them died."""

    code = "communication_error"


class HubUnavailableError(SparsifyError):
    """The Hugging Face Hub is overloaded or down."""

    code = "hub_unavailable"


class HubDeniedError(SparsifyError):
    """The Hugging Face Hub denied access to a model or dataset."""

    code = "hub_denied"
