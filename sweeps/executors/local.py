"""Local worker processes: one a core and one thread each.

More threads on shared cores are up to thirty times slower (50 ms became 1,500 ms a step, measured), so a worker gets
its thread count before it imports torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from sweeps.executors import DeadWorker
from sweeps.ledger import Stage
from sweeps.owner import Owner
from sweeps.workspace import Workspace, cache_folder

__all__ = ["LocalExecutor", "usable_cores"]

GRACE_SECONDS = 45.0


def usable_cores() -> int:
    """Cores that this process may run on, which containers and batch systems set lower than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    owner: Owner
    log: Path


class LocalExecutor:
    """Workers as child processes of this one, each in a session of its own so that Ctrl-C reaches only the engine."""

    def __init__(self, workspace: Workspace, study: str, threads: int) -> None:
        self._workspace, self._study, self._threads = workspace, study, threads
        self._workers: list[_Worker] = []
        self._started = 0

    def start(self, stage: Stage) -> None:
        log = self._workspace.logs / f"{self._study}-worker-{os.getpid()}-{self._started}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._started += 1
        command = [
            sys.executable,
            "-m",
            "sweeps.worker",
            "--workspace",
            str(self._workspace.root),
            "--study",
            self._study,
            "--stage",
            stage,
            "--parent",
            str(os.getpid()),
        ]
        with log.open("ab") as output:
            process = self._spawn(command, output)
        try:
            owner = Owner.of(process.pid)
        except psutil.NoSuchProcess:
            owner = Owner("", process.pid, 0.0)
        self._workers.append(_Worker(process, owner, log))

    def _spawn(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        threads = str(self._threads)
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            # Compiled kernels outlive the run: other processes and later studies of the same shape find them there.
            "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(cache_folder() / "inductor"),
        }
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def alive(self) -> int:
        return sum(worker.process.poll() is None for worker in self._workers)

    def collect_dead(self) -> Sequence[DeadWorker]:
        dead = []
        for worker in [w for w in self._workers if w.process.poll() is not None]:
            self._workers.remove(worker)
            code = worker.process.returncode
            if code:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
                dead.append(DeadWorker(worker.owner, f"its worker {how}; log: {worker.log}"))
            else:
                worker.log.unlink(missing_ok=True)
        return dead

    def stop(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_tree(worker.process)
            if worker.process.returncode == 0:
                worker.log.unlink(missing_ok=True)
        self._workers.clear()


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started (a compiler, say)."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    process.wait()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
