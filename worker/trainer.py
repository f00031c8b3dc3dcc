"""The training processes of one attempt: torchrun and its ranks, started and stopped as one tree."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from server.db.tables import ProcessIdentity
from sparsify_core.parent import end_with_parent
from sparsify_core.rundir import RunDir
from sparsify_core.torchrun import STANDALONE, torchrun_command
from worker import processes
from worker.log_pipe import LogPipe
from worker.rendezvous import Rendezvous

_ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_ALLOWED_PREFIXES = (
    *("LC_", "XDG_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_", "DATASETS_", "WANDB_"),
    *("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "TORCH", "PYTORCH_", "TRITON_", "OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
)


_FAMILY_EVERY_S = 5.0


def trainer_environment(
    environment: Mapping[str, str],
    *,
    run_id: str,
    fence: int,
    node: int = 0,
    devices: list[int],
    error_file: Path,
    hf_token: SecretStr | None = None,
) -> dict[str, str]:
    """What training may know of this process's environment: nothing of the database and the broker.

    `devices` are the indices of the leased GPUs; none hides all of them.
    """
    allowed = {
        name: value for name, value in environment.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)
    }
    if hf_token is not None:  # models may be gated
        allowed["HF_TOKEN"] = hf_token.get_secret_value()
    return allowed | {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts
        "CUDA_VISIBLE_DEVICES": ",".join(str(device) for device in devices),
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": allowed.get("TOKENIZERS_PARALLELISM", "false"),
        "TORCHELASTIC_ERROR_FILE": str(error_file),
        **processes.marks(run_id, fence, node),
    }


def trainer_config(config: dict[str, Any], activations_dir: Path) -> dict[str, Any]:
    """A run's configuration for its training processes: every attempt goes on from the newest intact checkpoint, if
    there is one, and a cache of activations, of which the run knows the name alone, gets its folder.
    """
    name = config.get("cache_activations")
    folder = {} if name is None else {"cache_activations": str(activations_dir.absolute() / name)}
    return config | {"resume": True} | folder


class Trainer:
    """torchrun and its ranks on one node.

    Start it from the main thread: the parent-death signal fires when the thread ends.
    """

    def __init__(
        self,
        run_dir: RunDir,
        *,
        fence: int,
        run_id: str,
        num_processes: int,
        devices: list[int],
        node: int = 0,
        rendezvous: Rendezvous | None = None,
        hf_token: SecretStr | None = None,
    ) -> None:
        self._run_id = run_id
        self._fence = fence
        self._node = node
        errors = run_dir.error_file(fence, node)
        environment = trainer_environment(
            os.environ, run_id=run_id, fence=fence, node=node, devices=devices, error_file=errors, hf_token=hf_token
        )
        meeting = rendezvous.options if rendezvous else STANDALONE
        command = torchrun_command(
            sys.executable,
            ["--config", str(run_dir.config), "--run_dir", str(run_dir.root), "--attempt", str(fence)],
            num_processes=num_processes,
            options=[*meeting, "--log-dir", str(run_dir.rank_files(fence, node))],
        )
        self._log = LogPipe(run_dir.log(fence, node))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log.inlet,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=run_dir.root,  # a name must not find files of wherever Sparseboard was started
                preexec_fn=end_with_parent(),  # safe: the supervisor has one thread
            )
        finally:
            self._log.close_inlet()
        self._asked_at: float | None = None
        self.family: list[ProcessIdentity] = []
        """torchrun and all that it has started, as far as they were seen and are not gone."""
        self._family: set[psutil.Process] = set()
        self._family_due = 0.0

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def look_after(self) -> None:
        """See to it that what training writes is read, and remember which processes there are. Call it often."""
        self._log.look_after()
        if time.monotonic() >= self._family_due:
            self._family_due = time.monotonic() + _FAMILY_EVERY_S
            self._remember_family()

    def ask_to_stop(self) -> None:
        """Have it save a checkpoint at the next step and end (SIGTERM). Once."""
        if self._asked_at is None and self._process.poll() is None:
            self._asked_at = time.monotonic()
            self._process.send_signal(signal.SIGTERM)

    def has_overrun(self, grace_s: float) -> bool:
        """Whether it still runs that long after it was asked to stop."""
        return (
            self._asked_at is not None and self._process.poll() is None and time.monotonic() - self._asked_at > grace_s
        )

    def kill(self) -> bool:
        """End every process of the tree now, also ranks whose torchrun is gone already.

        Returns whether all are gone; one that hangs in the kernel is not, stays in `family`, and may be killed again.
        """
        self._remember_family()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=3)  # before psutil waits for it and takes the exit status
        self._remember_family()
        survivors = processes.kill_run(self._run_id, up_to_fence=self._fence, node=self._node, also=self._family)
        self._family |= survivors
        self._remember_family()
        if not self.family:
            self._log.finish()
        return not self.family

    def _remember_family(self) -> None:
        """Those of before too: a rank that hangs while it exits has no environment, and its torchrun gives it up."""
        if self._process.poll() is None:
            self._family.update(processes.descendants(self._process.pid))
        self._family = {process for process in self._family if processes.is_running(process)}
        self.family = [processes.identity(pid) for pid in sorted(process.pid for process in self._family)]
