"""How long a stage takes on some workers: each takes the longest run that can start, as the ledger hands them out."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Job", "makespan_seconds"]


class Job(NamedTuple):
    """One run: what it takes a worker, and where it waits until its carrier is so many seconds old."""

    seconds: float
    carrier: int | None = None
    """Position of the job that carries this one's trunk."""
    carrier_seconds: float = 0.0


def makespan_seconds(jobs: Sequence[Job], workers: int) -> float:
    """Wall-clock seconds until the last of ``jobs`` has ended."""
    branches: dict[int, list[int]] = defaultdict(list)
    for at, job in enumerate(jobs):
        if job.carrier is not None:
            branches[job.carrier].append(at)
    ready = [(-job.seconds, at) for at, job in enumerate(jobs) if job.carrier is None]
    heapq.heapify(ready)
    coming: list[tuple[float, int]] = []
    """(when it can start, job) of the branches whose carrier has started."""
    free = [0.0] * workers
    left, end = len(jobs), 0.0
    while left:
        now = heapq.heappop(free)
        if not ready:
            if not coming:
                raise ValueError("jobs that carry each other's trunk can't start")
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now:
            _, at = heapq.heappop(coming)
            heapq.heappush(ready, (-jobs[at].seconds, at))
        _, at = heapq.heappop(ready)
        left -= 1
        for branch in branches[at]:
            heapq.heappush(coming, (now + jobs[branch].carrier_seconds, branch))
        heapq.heappush(free, now + jobs[at].seconds)
        end = max(end, now + jobs[at].seconds)
    return end
