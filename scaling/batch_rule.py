"""How a study's batch follows the length of a run, in the sweep as in the large run that it sizes."""

from __future__ import annotations

import math

from pydantic import Field

from scaling.record import Record

__all__ = ["BatchRule", "whole_sequences"]


class BatchRule(Record):
    """``batch_tokens`` a step of a run of ``at_tokens``, and D^``exponent`` times that of one of another length D.

    The batch of lowest loss grows with the length, whatever the size (Power Lines, 2505.13738: D^0.383). A law fitted
    to runs of one batch would be the law of another recipe than the large run's. ``exponent`` 0: one batch for all.
    """

    batch_tokens: int = Field(ge=1)
    at_tokens: float = Field(gt=0)
    exponent: float = Field(ge=0, le=1)

    def at(self, tokens: float) -> float:
        """The batch of a run of ``tokens``, in tokens; not yet whole sequences."""
        return float(self.batch_tokens * (tokens / self.at_tokens) ** self.exponent)

    def trained(self, tokens: float, context: int) -> int:
        """The same in whole sequences, as the sweep trains it."""
        return whole_sequences(self.at(tokens), context) if self.exponent else self.batch_tokens


def whole_sequences(batch_tokens: float, context: int, *, even: bool = False) -> int:
    """The batch in tokens that is whole sequences of ``context``: their number has up to three binary digits, then
    zeros, so that processes and micro-batches share it evenly. even: by two processes at least, but for one sequence.
    """
    wanted = batch_tokens / context
    if wanted < (2 if even else 1):
        return context
    step: int = 1 << max(int(even), math.floor(math.log2(wanted / 4)))
    return step * max(1, round(wanted / step)) * context
