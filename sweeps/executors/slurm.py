"""Workers as an array job of SLURM's, through submitit.

The study's process runs on a login node and may end: jobs go on, and the next one counts what they hold. A job whose
time is up or that makes room for another saves, gives its run back and is queued again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit

from scaling.errors import UserError
from sweeps.execute_settings import SlurmExecute
from sweeps.executors import DeadWorker
from sweeps.executors.command import WorkerCommand, cause_of
from sweeps.executors.slurm_job import WorkerJob, owner_file
from sweeps.ledger.ledger import Stage
from sweeps.ledger.owner import Owner

__all__ = ["SlurmExecutor"]

COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")
GRACE_SECONDS = 60.0
CHECK_SECONDS = 30.0
"""Between two questions to SLURM's accounting, which many people share; a job that ends well is seen by its result."""
MOST_REQUEUES = 1000


@dataclass(frozen=True)
class _Worker:
    job: Any
    command: WorkerCommand


class SlurmExecutor:
    """Workers as SLURM jobs; ``cluster="local"`` runs the same jobs as processes here, without SLURM."""

    def __init__(
        self, command: WorkerCommand, settings: SlurmExecute, cluster: Literal["slurm", "local"] = "slurm"
    ) -> None:
        if cluster == "slurm":
            missing = [command for command in COMMANDS if shutil.which(command) is None]
            if missing:
                raise UserError(
                    f"execute.on is slurm, and {', '.join(missing)} can't be found: start the study on a login node of "
                    "the cluster, or set execute.on to local"
                )
            if any(character in command.workspace for character in "%\n\r"):
                raise UserError(f"--workspace {command.workspace!r} has a % or a line break, which SLURM can't take")
        self._command = command
        self._folder = _private_folder(Path(command.workspace) / "logs" / "slurm")
        self._submitit = _submitit_executor(self._folder, cluster, command.study, settings)
        self._workers: list[_Worker] = []
        self._checked = time.monotonic()

    def start(self, stage: Stage, count: int) -> None:
        submission = time.time_ns()
        commands = [self._command.for_stage(stage, f"slurm-{submission}-{number}") for number in range(count)]
        try:
            # Submitted together they are one array job.
            with self._submitit.batch():
                jobs = [self._submitit.submit(WorkerJob(command, self._folder)) for command in commands]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            problem = " ".join(str(error).split())[:300]
            raise UserError(f"execute: sbatch refused the job ({problem})") from None
        self._workers += [_Worker(job, command) for job, command in zip(jobs, commands, strict=True)]

    def alive(self) -> int:
        return len(self._workers) - len(self._ended(force=False))

    def holds(self, owner: Owner) -> bool:
        return any(self._owner(worker) == owner for worker in self._workers)

    def collect_dead(self) -> Sequence[DeadWorker]:
        due = time.monotonic() - self._checked > CHECK_SECONDS
        if due:
            self._checked = time.monotonic()
        dead = []
        for worker in self._ended(force=due):
            self._workers.remove(worker)
            cause = _cause(worker)
            if cause:
                dead.append(DeadWorker(self._owner(worker), cause))
            else:
                worker.command.forget_log()
        return dead

    def kill(self, owner: Owner) -> None:
        for worker in [w for w in self._workers if self._owner(w) == owner]:
            worker.job.cancel(check=False)
            self._workers.remove(worker)

    def stop(self) -> None:
        for worker in self._workers:
            worker.job.cancel(check=False)
        deadline = time.monotonic() + GRACE_SECONDS
        while len(self._ended(force=True)) < len(self._workers) and time.monotonic() < deadline:
            time.sleep(1.0)
        self._workers.clear()

    def _ended(self, force: bool) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job.done(force_check=force)]

    def _owner(self, worker: _Worker) -> Owner | None:
        try:
            return Owner.parse(owner_file(self._folder, worker.job.job_id).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None


def _private_folder(path: Path) -> Path:
    """For submitit's pickles: whoever could write there could run code on the compute nodes."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def _submitit_executor(folder: Path, cluster: str, study: str, settings: SlurmExecute) -> Any:
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=MOST_REQUEUES)
    executor.update_parameters(
        name=study,
        timeout_min=settings.minutes,
        slurm_cpus_per_task=settings.cpus_per_worker,
        slurm_array_parallelism=1024,
        slurm_additional_parameters=dict(settings.sbatch),
        **({"gpus_per_node": settings.gpus_per_worker} if settings.gpus_per_worker else {}),
        **{f"slurm_{name}": value for name in ("partition", "account") if (value := getattr(settings, name))},
    )
    return executor


def _cause(worker: _Worker) -> str | None:
    """How an ended job's worker ended, if badly."""
    job = worker.job
    try:
        return cause_of(job.result(), worker.command.log)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError):
        return f"its SLURM job {job.job_id} ended as {job.state}; log: {job.paths.stderr}"
