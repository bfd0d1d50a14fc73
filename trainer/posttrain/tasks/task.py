"""A task whose answers have an exact score: what makes a change by post-training measurable without a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from trainer.posttrain.examples import Example

__all__ = ["GoldReward", "Task"]


class Task(Protocol):
    """Examples and the rule that scores answers to their prompts."""

    def examples(self) -> list[Example]:
        """All of them, in one order on every machine; ``columns`` hold what :meth:`checks` needs."""
        ...

    def checks(self, completion: str, columns: Mapping[str, str]) -> dict[str, float]:
        """What the rule asks for, by name, each in [0, 1]."""
        ...

    def score(self, completion: str, columns: Mapping[str, str]) -> float:
        """The gold score, in [0, 1]."""
        ...


class GoldReward:
    """A task's own score as a reward (:class:`trainer.posttrain.reward.Reward`)."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, *, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        """columns: one list a column of the task, as long as ``completions``."""
        rows = ({name: values[i] for name, values in columns.items()} for i in range(len(completions)))
        return [self._task.score(text, row) for text, row in zip(completions, rows, strict=True)]
