"""A Ray job: ``ray_job.py`` as it stands, what it starts in ``job.json``, and the command that submits it."""

from __future__ import annotations

import json
import shlex
from importlib import resources

from trainer.launch.job import Exported, Job
from trainer.launch.our_trainer import RUN_FILE, SHUTDOWN_SECONDS, notes, runnable, train_arguments
from trainer.launch.slurm import CPUS_PER_GPU

__all__ = ["export"]


def export(job: Job) -> Exported:
    job = runnable(job)
    placement = job.placement
    cuda = placement.device == "cuda"
    torchrun = [
        *("-m", "torch.distributed.run", "--nnodes", str(placement.nodes), "--node-rank", "{node_rank}"),
        *("--nproc-per-node", str(placement.gpus_per_node), "--shutdown-timeout", str(SHUTDOWN_SECONDS)),
        *("--master-addr", "{address}", "--master-port", "{port}"),
    ]
    described = {
        "title": job.title,
        "nodes": placement.nodes,
        "gpus_per_node": placement.gpus_per_node if cuda else 0,
        "cpus_per_node": placement.gpus_per_node * (CPUS_PER_GPU if cuda else 1),
        "torchrun": torchrun if placement.processes > 1 else [],
        "train": [
            *(("--corpus", job.corpus) if job.corpus else ()),
            "--out",
            str(job.out / "run"),
            *train_arguments(job),
        ],
        # Ray would give each process as many threads as the machine's share has processors.
        "environment": {"OMP_NUM_THREADS": "1"},
    }
    patience = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SHUTDOWN_SECONDS)}})
    script = [
        "#!/usr/bin/env bash",
        f"# {job.title}.",
        "# Written by `scaling launch`: submits the run to the Ray cluster whose dashboard RAY_API_SERVER_ADDRESS",
        "# names. `ray job stop` has it save; submitted again it goes on. Further arguments go to `scaling train`.",
        "set -euo pipefail",
        'cd -- "$(dirname -- "${BASH_SOURCE[0]}")"',
        f'exec ray job submit --working-dir . --runtime-env-json {shlex.quote(patience)} -- python ray_job.py "$@"',
    ]
    program = resources.files("trainer.launch").joinpath("ray_job.py").read_text(encoding="utf-8")
    said = notes(job)
    if job.corpus is None:
        said = (*said[:-1], 'the corpus is not here: add --corpus and its place to "train" in job.json')
    return Exported(
        files={
            RUN_FILE: job.text,
            "ray_job.py": program,
            "job.json": json.dumps(described, indent=2) + "\n",
            "submit.sh": "\n".join(script) + "\n",
        },
        start=str(job.out / "ray" / "submit.sh"),
        programs=("submit.sh",),
        placement=placement,
        notes=said,
    )
