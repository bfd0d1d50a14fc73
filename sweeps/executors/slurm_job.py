"""What a SLURM job runs: one worker as its child, stopped and queued again when SLURM gives warning.

submitit sends this object by pickle, names and numbers alone; it is read on the compute node from a folder that only
its owner can open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import submitit

from sweeps.executors.command import WorkerCommand, owner_of

__all__ = ["WorkerJob", "owner_file"]

POLL_SECONDS = 0.2


class WorkerJob:
    def __init__(self, command: WorkerCommand, folder: Path) -> None:
        self.command, self.folder = command, folder
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the worker to its end; returns its exit code."""
        self._process = process = self.command.spawn()
        owner_file(self.folder, submitit.JobEnvironment().job_id).write_text(str(owner_of(process)), encoding="utf-8")
        try:
            # Not process.wait(): it holds a lock that the handler of SLURM's warning, in this same thread, would need.
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._end_worker()
        return int(process.wait())

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """Called in the handler of SLURM's warning: the worker saves and gives its run back, then the job is queued
        again; None, with the reason in the job's log, where it can't be."""
        self._end_worker()
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and shutil.which("scontrol") is None:
            print("not queued again: scontrol is not in PATH on this node; its run was given back", flush=True)
            return None
        return submitit.helpers.DelayedSubmission(WorkerJob(self.command, self.folder))

    def _end_worker(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def owner_file(folder: Path, job_id: str) -> Path:
    """Says which process a job's worker is, as the ledger calls it."""
    return folder / f"{job_id}.owner"
