"""Who holds a run: a process that cannot be mistaken for another, and whether it is still there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Owner"]


class Owner(NamedTuple):
    """A process that cannot be mistaken for another: the start time tells a reused pid apart."""

    host: str
    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Owner:
        return cls(socket.gethostname(), pid, _started(pid))

    @classmethod
    def me(cls) -> Owner:
        return cls.of(os.getpid())

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        host, pid, started = text.rsplit("/", 2)
        return cls(host, int(pid), float(started))

    def kill(self) -> None:
        """End the process at once if it runs on this host and is still the one that was meant."""
        if self.host == socket.gethostname() and not self.is_dead():
            psutil.Process(self.pid).kill()

    def is_dead(self) -> bool:
        """True if this host knows that the process is gone; another host's process is never called dead."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if abs(_started(self.pid) - self.started) > 0.05:
                return True
            # A zombie child of ours has yet to be collected by its executor, which counts the death as a failure.
            return process.status() == psutil.STATUS_ZOMBIE and process.ppid() != os.getpid()
        except psutil.NoSuchProcess:
            return True


def _started(pid: int) -> float:
    """Seconds since the machine's start, where the kernel tells them: the time of day may be set while it runs."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return round(psutil.Process(pid).create_time(), 2)
    # The name, in parentheses, may hold anything; the start time is the 20th field after it.
    return int(line.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
