"""Jobs of the benchmarks' workloads (benchmarks/workloads.py), for tests of plans: shapes alone, no model."""

import time
from typing import Any

from server.planning import Device, Job, make_job
from server.services.model_shapes import Answer, answer_file
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.shape import ModelShape, ModuleShape

H100 = Device("NVIDIA H100 80GB HBM3", memory_bytes=85_899_345_920)
TWO_CORES = Device("cpu", cores=2)


def model_shape(num_layers: int, width: int, layer_parameters: int, vocab_size: int, **values: Any) -> ModelShape:
    """Of a decoder whose layers each have one MLP."""
    modules = [ModuleShape(path="layers", kind="ModuleList", d_in=None, d_out=None, num_parameters=0)]
    for index in range(num_layers):
        for part in ("", ".mlp"):
            path = f"layers.{index}{part}"
            modules.append(
                ModuleShape(path=path, kind="Layer", d_in=width, d_out=width, num_parameters=layer_parameters)
            )
    return ModelShape(
        architecture="llama",
        layers="layers",
        num_layers=num_layers,
        hidden_size=width,
        vocab_size=vocab_size,
        num_parameters=num_layers * layer_parameters + vocab_size * width,
        num_head_parameters=0,
        knows_widths=True,
        modules=modules,
        **values,
    )


def know_shape(
    settings: Settings, model: str, shape: ModelShape, *, revision: str | None = None, age_s: float = 0.0
) -> None:
    """Leave a child process's answer about a model behind."""
    file = answer_file(settings, model, revision)
    file.parent.mkdir(exist_ok=True)
    file.write_text(Answer(at=time.time() - age_s, shape=shape).model_dump_json())


SMOLLM2_135M = model_shape(30, 576, 3_540_096, 49_152)
PYTHIA_160M = model_shape(12, 768, 7_087_872, 50_304)
NO_MODEL = model_shape(1, 4096, 0, 8192)
"""What stands for a model where a coder is measured alone: one look-up."""

WORKLOADS: dict[str, tuple[ModelShape, dict[str, Any]]] = {
    "W1": (SMOLLM2_135M, {"hookpoints": ["layers.15"], "batch_size": 32}),
    "W2": (PYTHIA_160M, {"hookpoints": ["layers.[0-9]", "layers.1[01]"], "batch_size": 16}),
    "W3": (NO_MODEL, {"hookpoints": ["layers.0"], "batch_size": 4, "sae": {"k": 64}}),
}


def job_of(workload: str, device: Device = H100, *, num_processes: int = 1, **changes: Any) -> Job:
    """A workload with changes of its configuration; those of `sae` are added to the workload's."""
    shape, values = WORKLOADS[workload]
    sae = values.get("sae", {}) | changes.pop("sae", {})
    config = RunConfig(**{"model": "owner/model", "dataset": "owner/data"} | values | changes | {"sae": sae})
    return make_job(config, shape, num_processes=num_processes, device=device)
