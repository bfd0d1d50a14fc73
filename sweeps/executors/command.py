"""How a worker is started, wherever it runs: its command, its environment, and what its exit code means.

More threads on shared cores are up to thirty times slower (50 ms became 1,500 ms a step, measured), so a worker gets
its thread count before it imports torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil

from scaling.record import Record
from sweeps.ledger.ledger import Stage
from sweeps.ledger.owner import Owner
from sweeps.worker_exit import REFUSED, STOPPED
from sweeps.workspace import cache_folder

__all__ = ["WorkerCommand", "cause_of", "kill_tree"]


class WorkerCommand(Record):
    """All that a host must know to run a worker: names and numbers, which any executor can send."""

    workspace: str
    study: str
    threads: int
    checkpoint_seconds: float = 20.0
    stage: Stage = "sweep"
    log: str = ""

    def for_stage(self, stage: Stage, name: str) -> WorkerCommand:
        log = Path(self.workspace) / "logs" / f"{self.study}-worker-{name}.log"
        return self.model_copy(update={"stage": stage, "log": str(log)})

    def spawn(self, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """The worker as a child of this process, in a session of its own so that Ctrl-C reaches only the engine."""
        command = [sys.executable, "-m", "sweeps.worker", "--workspace", self.workspace, "--study", self.study]
        command += ["--stage", self.stage, "--parent", str(os.getpid())]
        command += ["--checkpoint-seconds", str(self.checkpoint_seconds)]
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with Path(self.log).open("ab") as output:
            return self._popen(command, output, environment or {})

    def _popen(self, command: list[str], output: IO[bytes], more: dict[str, str]) -> subprocess.Popen[bytes]:
        threads = str(self.threads)
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
            env=environment | more,
            start_new_session=True,
        )

    def forget_log(self) -> None:
        """Of a worker that ended well."""
        Path(self.log).unlink(missing_ok=True)


def owner_of(process: subprocess.Popen[bytes]) -> Owner:
    try:
        return Owner.of(process.pid)
    except psutil.NoSuchProcess:
        return Owner("", process.pid, 0.0)


def cause_of(code: int, log: str) -> str | None:
    """How a worker ended, in words; None if it ended well, or saved and stopped because it was told to."""
    if code in (0, STOPPED):
        return None
    if code == REFUSED and (reason := _last_line(log)):
        return reason
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return f"its worker {how}; log: {log}"


def _last_line(log: str) -> str | None:
    """None if the log is empty, or on another host."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return None
    return next((line[:1000] for line in reversed(lines) if line.strip()), None)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
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
