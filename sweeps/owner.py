"""Who holds a run: a process that cannot be mistaken for another, and whether it is still there."""

from __future__ import annotations

import os
import socket
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
        return cls(socket.gethostname(), pid, round(psutil.Process(pid).create_time(), 2))

    @classmethod
    def me(cls) -> Owner:
        return cls.of(os.getpid())

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        host, pid, started = text.rsplit("/", 2)
        return cls(host, int(pid), float(started))

    def is_dead(self) -> bool:
        """True if this host knows that the process is gone; another host's process is never called dead."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > 1:
                return True
            # A zombie child of ours has yet to be collected by its executor, which counts the death as a failure.
            return process.status() == psutil.STATUS_ZOMBIE and process.ppid() != os.getpid()
        except psutil.NoSuchProcess:
            return True
