"""Local worker processes: one a core and one thread each."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.executors import DeadWorker
from sweeps.executors.command import WorkerCommand, cause_of, kill_tree, owner_of
from sweeps.ledger.ledger import Stage
from sweeps.ledger.owner import Owner

__all__ = ["LocalExecutor", "usable_cores"]

GRACE_SECONDS = 45.0


def usable_cores() -> int:
    """Cores that this process may run on, which containers and batch systems set lower than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    owner: Owner
    command: WorkerCommand


class LocalExecutor:
    """Workers as child processes of this one."""

    def __init__(self, command: WorkerCommand) -> None:
        self._command = command
        self._workers: list[_Worker] = []
        self._started = 0

    def start(self, stage: Stage, count: int) -> None:
        for _ in range(count):
            name = f"{os.getpid()}-{self._started}"
            self._started += 1
            command = self._command.for_stage(stage, name)
            process = command.spawn()
            self._workers.append(_Worker(process, owner_of(process), command))

    def alive(self) -> int:
        return sum(worker.process.poll() is None for worker in self._workers)

    def holds(self, owner: Owner) -> bool:
        return any(worker.owner == owner for worker in self._workers)

    def collect_dead(self) -> Sequence[DeadWorker]:
        dead = []
        for worker in [w for w in self._workers if w.process.poll() is not None]:
            self._workers.remove(worker)
            cause = cause_of(worker.process.returncode, worker.command.log)
            if cause:
                dead.append(DeadWorker(worker.owner, cause))
            else:
                worker.command.forget_log()
        return dead

    def kill(self, owner: Owner) -> None:
        for worker in [w for w in self._workers if w.owner == owner]:
            kill_tree(worker.process)
            self._workers.remove(worker)

    def stop(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                kill_tree(worker.process)
            if cause_of(worker.process.returncode, worker.command.log) is None:
                worker.command.forget_log()
        self._workers.clear()
