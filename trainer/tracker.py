"""What the training loop reports to: it knows this protocol alone; ledgers, screens and servers stand behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["MetricPoint", "NullTracker", "ProgressReport", "RecordingTracker", "Tracker", "Trackers"]


class Tracker(Protocol):
    """Receives one run's curve, its progress and its remarks, in the order of steps.

    After a resume the loop repeats the points between its last checkpoint and the interruption, with equal values but
    for speeds; a tracker that stores them keeps one.
    """

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        """Points of the curve after ``step`` steps, ``tokens`` tokens and ``flops`` exact training FLOPs.

        Names: ``train_loss`` and ``held_out_loss`` (nats a token), ``bits_per_byte`` of the same held-out tokens,
        ``learning_rate``, ``gradient_norm``; with held-out losses ``tokens_per_second`` and ``mfu`` since the last one.
        """

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        """How far the run is, for a live display; called every half second at most. ``loss`` is nats a token."""

    def note(self, message: str) -> None:
        """Something that a person should know, in one line."""

    def flush(self) -> None:
        """Make durable what was reported; called before each checkpoint, since a resumed run won't report it again."""


class NullTracker:
    """Forgets everything."""

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        return

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        return

    def note(self, message: str) -> None:
        return

    def flush(self) -> None:
        return


class Trackers:
    """Several as one, told in the order given."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.metrics(step, tokens, flops, values)

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        for tracker in self._trackers:
            tracker.progress(step, tokens, tokens_per_second, loss)

    def note(self, message: str) -> None:
        for tracker in self._trackers:
            tracker.note(message)

    def flush(self) -> None:
        for tracker in self._trackers:
            tracker.flush()


@dataclass(frozen=True)
class MetricPoint:
    step: int
    tokens: int
    flops: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class ProgressReport:
    step: int
    tokens: int
    tokens_per_second: float
    loss: float


@dataclass
class RecordingTracker:
    """Keeps everything in memory, for notebooks and tests."""

    points: list[MetricPoint] = field(default_factory=list)
    reports: list[ProgressReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        self.points.append(MetricPoint(step, tokens, flops, dict(values)))

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        self.reports.append(ProgressReport(step, tokens, tokens_per_second, loss))

    def note(self, message: str) -> None:
        self.notes.append(message)

    def flush(self) -> None:
        return

    def curve(self, name: str) -> dict[int, float]:
        """The values of one metric by step; of a repeated step the last."""
        return {point.step: point.values[name] for point in self.points if name in point.values}
