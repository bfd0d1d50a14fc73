"""What every kind of design yields: the runs to train, and what each adds to the cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scaling.record import Record
from scaling.shape import ModelShape, ParameterCounts

__all__ = ["Design", "DesignKind", "DesignPoint"]

DesignKind = Literal["information", "isoflop", "ratio", "grid", "curves", "csv", "cure"]


class DesignPoint(Record):
    """One run to train: ``tokens`` are whole batches, ``flops`` are those of the whole run, exactly."""

    budget: float | None = Field(default=None, description="of its iso-FLOP line, within 2% of ``flops``")
    shape: ModelShape
    params: ParameterCounts
    tokens: int
    flops: float
    cost_flops: float = Field(description="what it adds beside the others: of a branch, its cooldown alone")
    branched: bool = Field(default=False, description="shares the trunk of its shape and replicate")
    replicate: int = Field(default=0, ge=0, description="offset of the seed: equal runs but for it are replicates")


class Design(Record):
    """The runs, the cheapest budget and the smallest size first."""

    kind: DesignKind
    points: tuple[DesignPoint, ...]
    tokens_per_param_centre: float = Field(description="where the optimum is expected, in D / N")
    global_batch_tokens: int

    @property
    def flops(self) -> float:
        """What all points cost together."""
        return sum(point.cost_flops for point in self.points)

    @property
    def shapes(self) -> tuple[ModelShape, ...]:
        """The distinct shapes, the smallest first."""
        sizes = {point.shape: point.params.total for point in self.points}
        return tuple(sorted(sizes, key=sizes.__getitem__))
