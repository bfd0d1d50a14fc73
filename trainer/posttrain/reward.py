"""What scores an answer: one signature for PPO, GRPO, RLOO and best-of-n, which is that of TRL's reward functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Reward"]


class Reward(Protocol):
    """A reward model, a rule, or a task's exact gold score."""

    def __call__(self, *, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        """One finite score for each completion, in order; higher is better.

        columns: what else is known of each row, as sequences of equal length: the data set's other columns, and
        ``completion_ids`` (the completion's token ids). A reward takes what it needs and ignores the rest.
        """
        ...
