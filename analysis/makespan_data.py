"""What the figure of time shows, once: the plan's expectation of each run and stage beside what it took, and when each
run was trained.

The ledger forgets who trained a run when it ends; that one worker trains one run at a time tells who could have: each
run lies in the lane that was free first. Times in which nothing was trained (a stop overnight) are cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from analysis.study_view import StudyView, TrainedRun

__all__ = ["STAGES", "Bar", "Makespan", "StageTime", "makespan", "unit_of"]

Floats = NDArray[np.float64]

STAGES = ("probe", "tune", "sweep", "hold-out")
_LONG_BREAK, _SHORT_BREAK = 0.05, 0.01
"""Breaks over this share of the time in training are cut down to this one."""
_SHORTEST_BREAK = 10.0
"""Seconds; nothing shorter is a break."""


@dataclass(frozen=True)
class Bar:
    """One run in its lane; seconds since the first began, breaks cut short."""

    run: TrainedRun
    lane: int
    start: float
    end: float


@dataclass(frozen=True)
class StageTime:
    """Seconds of wall clock that one stage took all workers together."""

    name: str
    expected: float
    real: float
    start: float
    """On the axis of the bars."""


@dataclass(frozen=True)
class Makespan:
    runs: tuple[TrainedRun, ...]
    """Those whose expectation is known and which came to their end."""
    expected: Floats
    real: Floats
    """Seconds in training, one entry a run."""
    stages: tuple[StageTime, ...]
    bars: tuple[Bar, ...]
    lanes: int
    breaks: tuple[float, ...]
    """Where a break was cut short."""

    @property
    def end(self) -> float:
        return max(bar.end for bar in self.bars)


def unit_of(seconds: float) -> tuple[float, str]:
    """The unit that ``seconds`` are told in, by its own seconds and its name."""
    for size, name, most in ((1.0, "s", 300), (60.0, "min", 300 * 60), (3600.0, "h", 100 * 3600)):
        if seconds <= most:
            return size, name
    return 86_400.0, "days"


def makespan(view: StudyView) -> Makespan | None:
    """None where it is not known when the runs were trained."""
    runs = sorted(_distinct(view.trained), key=lambda run: (run.started_at, run.ended_at, run.run_key))
    if not runs:
        return None
    clock = _Clock.of(runs)
    bars = _bars(runs, clock)
    told = [run for run in runs if run.state == "finished" and run.expected_seconds]
    return Makespan(
        runs=tuple(told),
        expected=np.array([run.expected_seconds for run in told], dtype=np.float64),
        real=np.array([_trained_seconds(run) for run in told], dtype=np.float64),
        stages=_stages(view, bars),
        bars=bars,
        lanes=1 + max(bar.lane for bar in bars),
        breaks=clock.breaks,
    )


def _distinct(trained: Sequence[TrainedRun]) -> list[TrainedRun]:
    """A run that two stages want was trained for the first of them."""
    kept: dict[str, TrainedRun] = {}
    for run in sorted(trained, key=lambda run: STAGES.index(run.stage) if run.stage in STAGES else len(STAGES)):
        kept.setdefault(run.run_key, run)
    return [run for run in kept.values() if run.ended_at >= run.started_at]


def _trained_seconds(run: TrainedRun) -> float:
    """A run's own count is without its interruptions, a branch's with its trunk; from start to end is the other way."""
    between = max(run.ended_at - run.started_at, 1e-3)
    return between if run.trained_seconds is None else min(between, max(run.trained_seconds, 1e-3))


@dataclass(frozen=True)
class _Clock:
    """Seconds since the epoch to seconds on the axis: linear between the ends of breaks."""

    epoch: Floats
    axis: Floats
    breaks: tuple[float, ...]

    @classmethod
    def of(cls, runs: Sequence[TrainedRun]) -> _Clock:
        """The clock of ``runs``, in the order in which they started."""
        busy: list[list[float]] = []
        for run in runs:
            if busy and run.started_at <= busy[-1][1]:
                busy[-1][1] = max(busy[-1][1], run.ended_at)
            else:
                busy.append([run.started_at, run.ended_at])
        total = sum(end - start for start, end in busy)
        longest = max(_SHORTEST_BREAK, _LONG_BREAK * total)
        epoch, axis, breaks = [busy[0][0]], [0.0], []
        for (start, end), (again, _) in pairwise([*busy, [np.inf, np.inf]]):
            epoch.append(end)
            axis.append(axis[-1] + end - start)
            if np.isfinite(again):
                idle = again - end
                short = idle > longest
                epoch.append(again)
                axis.append(axis[-1] + (_SHORT_BREAK * total if short else idle))
                if short:
                    breaks.append((axis[-1] + axis[-2]) / 2)
        return cls(np.array(epoch), np.array(axis), tuple(breaks))

    def seconds(self, time: float) -> float:
        return float(np.interp(time, self.epoch, self.axis))


def _bars(runs: Sequence[TrainedRun], clock: _Clock) -> tuple[Bar, ...]:
    free: list[float] = []
    bars = []
    for run in runs:
        waiting = [lane for lane, until in enumerate(free) if until <= run.started_at]
        lane = min(waiting, key=lambda each: free[each]) if waiting else len(free)
        if lane == len(free):
            free.append(0.0)
        free[lane] = run.ended_at
        bars.append(Bar(run, lane, clock.seconds(run.started_at), clock.seconds(run.ended_at)))
    return tuple(bars)


def _stages(view: StudyView, bars: Sequence[Bar]) -> tuple[StageTime, ...]:
    found = []
    for name in STAGES:
        mine = [bar for bar in bars if bar.run.stage == name]
        if mine:
            start, end = min(bar.start for bar in mine), max(bar.end for bar in mine)
            found.append(StageTime(name, float(view.expected_stage_seconds.get(name, np.nan)), end - start, start))
    return tuple(found)
