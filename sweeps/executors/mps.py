"""Several workers on one NVIDIA GPU: by its multi-process service (MPS) where its daemon runs, else in turns."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["mps_environment"]


def mps_environment(gpus_per_worker: float) -> tuple[dict[str, str], str | None]:
    """(what a worker's environment needs, what to say of it) for a worker that shares its GPU; nothing if it doesn't.

    The daemon is known by its control pipe, in ``CUDA_MPS_PIPE_DIRECTORY`` or the place that it takes by default.
    """
    if not 0 < gpus_per_worker < 1:
        return {}, None
    pipes = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    if not (Path(pipes) / "control").exists():
        return {}, "this GPU's workers take turns: no MPS daemon runs here (nvidia-cuda-mps-control -d starts one)"
    share = str(max(1, round(100 * gpus_per_worker)))
    environment = {"CUDA_MPS_PIPE_DIRECTORY": pipes, "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": share}
    return environment, f"this GPU's workers run side by side by MPS, each on at most {share}% of it"
