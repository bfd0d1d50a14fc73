"""A script for one machine: a single process, or one a GPU under ``torchrun``, weights in shards (FSDP2)."""

from __future__ import annotations

import shlex

from scaling.errors import UserError
from trainer.launch.job import Exported, Job
from trainer.launch.our_trainer import RUN_FILE, SHUTDOWN_SECONDS, head, notes, runnable, train_arguments

__all__ = ["export"]

RESTARTS = 3


def export(job: Job) -> Exported:
    job = runnable(job, one_machine=True)
    placement = job.placement
    if placement.nodes > 1:
        raise UserError(
            f"--nodes {placement.nodes}: torchrun by hand is for one machine; export --to slurm or --to ray"
        )
    here = 'HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)'
    start = ['exec "$PYTHON"']
    what = "One process."
    if placement.processes > 1:
        what = f"{placement.processes} processes of this machine; killed ones are started again, {RESTARTS} times."
        start.append(
            f"-m torch.distributed.run --standalone --nproc-per-node {placement.processes} --max-restarts {RESTARTS} "
            f"--shutdown-timeout {SHUTDOWN_SECONDS}"
        )
    start.append(
        f'-m scaling.cli.main train "$HERE/{RUN_FILE}" --corpus "$CORPUS" --out "$RUN" '
        f'{shlex.join(train_arguments(job))} "$@"'
    )
    lines = ["#!/usr/bin/env bash", *head(job, what), here, " \\\n  ".join(start)]
    return Exported(
        files={RUN_FILE: job.text, "launch.sh": "\n".join(lines) + "\n"},
        start=str(job.out / "launch.sh"),
        programs=("launch.sh",),
        placement=placement,
        notes=notes(job),
    )
