"""What the fitted runs may cost together, in the unit that the user thinks in, and the design that just fits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from pydantic import Field, model_validator

from scaling.errors import UserError
from scaling.record import Record

__all__ = ["Budget", "Cost", "largest_within"]

_UNITS = ("flops", "minutes", "hours", "gpu_hours", "usd")
_TRIES = 12
_CLOSE = 0.97
"""A design that uses this share of the budget is not made larger."""


class Budget(Record):
    """Exactly one of: FLOPs; minutes or hours on the workers at hand; hours of GPUs; dollars."""

    flops: float | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    hours: float | None = Field(default=None, gt=0)
    gpu_hours: float | None = Field(default=None, gt=0)
    usd: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        if sum(getattr(self, unit) is not None for unit in _UNITS) != 1:
            raise ValueError(f"needs exactly one of {', '.join(_UNITS)}")
        return self

    @property
    def unit(self) -> str:
        return next(unit for unit in _UNITS if getattr(self, unit) is not None)

    @property
    def amount(self) -> float:
        return float(getattr(self, self.unit))

    def share(self, rounds: int) -> Budget:
        """What one of ``rounds`` may cost."""
        return Budget.model_validate({self.unit: self.amount / rounds})


class Cost(Record):
    """What a design takes: exact FLOPs, seconds of the longest-first schedule on its workers, and seconds of all
    accelerators together (None without one)."""

    flops: float
    makespan_seconds: float
    gpu_seconds: float | None = None
    usd_per_hour: float | None = Field(
        default=None, description="of one accelerator, or of this machine where it has none"
    )

    @property
    def usd(self) -> float | None:
        if self.usd_per_hour is None:
            return None
        seconds = self.makespan_seconds if self.gpu_seconds is None else self.gpu_seconds
        return seconds / 3600 * self.usd_per_hour

    def of(self, budget: Budget) -> float:
        """The cost in the budget's unit. Raises :class:`UserError` where this machine has no such cost."""
        if budget.unit == "gpu_hours":
            if self.gpu_seconds is None:
                raise UserError(
                    f"budget.gpu_hours is {budget.amount:g}, and this machine has no GPU: give the budget in hours, "
                    "usd or flops"
                )
            return self.gpu_seconds / 3600
        if budget.unit == "usd":
            if self.usd is None:
                raise UserError(
                    f"budget.usd is {budget.amount:g}, and what an hour costs is not known: set execute.usd_per_hour, "
                    "of one GPU, or of this machine where it has none"
                )
            return self.usd
        return {"flops": self.flops, "minutes": self.makespan_seconds / 60, "hours": self.makespan_seconds / 3600}[
            budget.unit
        ]


class _Costed(Protocol):
    @property
    def flops(self) -> float:
        """Of all runs together."""


D = TypeVar("D", bound=_Costed)


def largest_within(
    budget: Budget, lay_out: Callable[[float], D], cost: Callable[[D], Cost], first_guess_flops: float
) -> D:
    """The design of most FLOPs that costs no more than ``budget``, to within 3% or a step of the design's.

    lay_out: a design for some FLOPs together. Raises :class:`UserError` where even the least design costs more.
    """
    if budget.flops is not None:
        return lay_out(budget.flops)
    flops, best, too_small = first_guess_flops, None, None
    least_over = float("inf")
    for _ in range(_TRIES):
        try:
            design = lay_out(flops)
        except UserError as error:
            # Too few FLOPs for this family; more of them reach larger sizes.
            too_small, low = error, flops
            flops = flops * 2 if least_over == float("inf") else (low * least_over) ** 0.5
            continue
        share = cost(design).of(budget) / budget.amount
        if share <= 1:
            if best is None or design.flops > best.flops:
                best = design
            if share >= _CLOSE:
                break
        else:
            least_over = min(least_over, flops)
        step = flops * 0.985 / share
        flops = min(step, 0.99 * least_over) if share <= 1 else step
    if best is None:
        reason = f": {too_small}" if too_small else ""
        raise UserError(
            f"budget.{budget.unit} is {budget.amount:g}: no design of this kind is that cheap here{reason}. Give more"
        )
    return best
