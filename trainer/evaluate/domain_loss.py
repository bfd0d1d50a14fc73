"""What a model's loss is on one kind of text."""

from __future__ import annotations

from pydantic import Field

from scaling.record import Record

__all__ = ["DomainLoss"]


class DomainLoss(Record):
    """The loss on one domain's share of the held-out tokens.

    With few works the standard error is itself uncertain: an interval takes Student's t of ``works`` - 1.
    """

    loss_nats: float = Field(allow_inf_nan=False, description="mean nats a token")
    loss_sem: float | None = Field(allow_inf_nan=False, description="clustered by work; None of a single work")
    bits_per_byte: float | None = Field(allow_inf_nan=False, description="None if there is no text among the tokens")
    tokens: int
    works: int
