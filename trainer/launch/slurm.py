"""A batch script for SLURM: ``torchrun`` on every machine of the job, saved and queued again when it must make way.

Near its time limit the batch shell gets USR1 (``--signal=B:``), has the step's processes save by SIGTERM, and puts the
job back into the queue. Where SLURM preempts it, the processes get SIGTERM from SLURM itself, which also queues the
job again (``--requeue``); the partition's GraceTime is the time they have. ``srun`` itself is never signalled: on
SIGTERM it would end the step in KillWait seconds.
"""

from __future__ import annotations

import shlex

from trainer.launch.job import Exported, Job
from trainer.launch.our_trainer import RUN_FILE, SHUTDOWN_SECONDS, head, notes, runnable, train_arguments

__all__ = ["export"]

WARNING_SECONDS = 600
"""Before the time limit: long enough to save, and for the step that is under way."""
HOURS = 24
CPUS_PER_GPU = 8

_WATCH = """\
again=
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM
"""
_WAIT = """\
step=$!
code=0
while :; do
  wait "$step" && code=0 || code=$?
  kill -0 "$step" 2>/dev/null || break  # a trap ends the wait before the step has ended
done
if [[ -n $again && ! -e $RUN/result.json ]]; then
  echo "time is nearly up: saved, and queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def export(job: Job) -> Exported:
    job = runnable(job)
    placement = job.placement
    nodes, each = placement.nodes, placement.gpus_per_node
    gpus = [f"--gpus-per-node={each}"] if placement.device == "cuda" else []
    cpus = each * (CPUS_PER_GPU if placement.device == "cuda" else 1)
    options = [
        f"--job-name={''.join(c if c.isalnum() or c in '._-' else '-' for c in job.name)}",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        *gpus,
        f"--cpus-per-task={cpus}",
        f"--time={HOURS}:00:00",
        f"--signal=B:USR1@{WARNING_SECONDS}",
        "--requeue",
        "--open-mode=append",
        "--output=%x-%j.log",
    ]
    train = (
        f'-m scaling.cli.main train {shlex.quote(str(job.out / RUN_FILE))} --corpus "$CORPUS" --out "$RUN" '
        f'{shlex.join(train_arguments(job))} "$@" &'
    )
    if placement.processes > 1:
        start = [
            f'srun --nodes={nodes} --ntasks-per-node=1 --kill-on-bad-exit=1 "$PYTHON" -m torch.distributed.run',
            f"--nnodes {nodes} --nproc-per-node {each} --shutdown-timeout {SHUTDOWN_SECONDS}",
            '--rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-endpoint "$first:$port"',
            train,
        ]
        place = [
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "port=$((20000 + SLURM_JOB_ID % 10000))",
        ]
    else:
        start, place = ['srun --nodes=1 --ntasks=1 "$PYTHON"', train], []
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {option}" for option in options),
        *head(
            job,
            f"{nodes} machines x {each} processes; partition and account are yours to add.",
        ),
        *place,
        _WATCH.rstrip("\n"),
        " \\\n  ".join(start),
        _WAIT.rstrip("\n"),
    ]
    return Exported(
        files={RUN_FILE: job.text, "launch.sbatch": "\n".join(lines) + "\n"},
        start=f"sbatch {shlex.quote(str(job.out / 'launch.sbatch'))}",
        programs=("launch.sbatch",),
        placement=placement,
        notes=notes(job),
    )
