"""batch ∝ D^0.383 and τ = B/(ηλD) a power of D/N: Power Lines, Bergsma et al. (2505.13738).

τ is the share of a run over which AdamW averages its updates: 1/(ηλ) steps out of D/B. It ties the weight decay λ to
the learning rate η and the batch B, so that a τ measured once gives λ for the next run.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from scaling.laws.hyperparameter import HyperparameterLaw
from scaling.laws.law import Parameter
from scaling.record import Record

__all__ = [
    "BATCH_EXPONENT",
    "POWER_LINES_BATCH",
    "POWER_LINES_TIMESCALE",
    "PowerLinesBatch",
    "PowerLinesTimescale",
    "WeightDecay",
    "adamw_timescale",
    "weight_decay_of",
]

BATCH_EXPONENT = 0.383
"""Of the batch of lowest loss in tokens, whatever N."""


class PowerLinesBatch(HyperparameterLaw):
    """batch = k·D^c tokens with c = 0.383. It is used from a batch that was measured (``scaling.batch_rule``)."""

    name: ClassVar[str] = "power-lines-batch"
    title: ClassVar[str] = "Power Lines"
    quantity: ClassVar[str] = "batch"
    formula: ClassVar[str] = "batch = k·D^c"
    citation: ClassVar[str] = "Bergsma et al. 2505.13738: batch of lowest loss ~ D^0.383, 111M to 3.3B parameters"
    inputs: ClassVar[tuple[str, ...]] = ("tokens",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("c", log=False))
    published: ClassVar[tuple[float, ...] | None] = None
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"params": (1.11e8, 3.3e9)}


class PowerLinesTimescale(HyperparameterLaw):
    """τ = k·(D/N)^m, the AdamW timescale of lowest loss, for a sweep of weight decays to be fitted with."""

    name: ClassVar[str] = "power-lines-timescale"
    title: ClassVar[str] = "Power Lines"
    quantity: ClassVar[str] = "timescale"
    formula: ClassVar[str] = "τ = k·(D/N)^m"
    citation: ClassVar[str] = "Bergsma et al. 2505.13738"
    inputs: ClassVar[tuple[str, ...]] = ("tokens_per_param",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("m", log=False))
    published: ClassVar[tuple[float, ...] | None] = None
    ranges: ClassVar[dict[str, tuple[float, float]]] = PowerLinesBatch.ranges


def adamw_timescale(batch_tokens: float, learning_rate: float, weight_decay: float, tokens: float) -> float:
    """τ = B/(ηλD), with batch and run in tokens."""
    return batch_tokens / (learning_rate * weight_decay * tokens)


def weight_decay_of(timescale: float, batch_tokens: float, learning_rate: float, tokens: float) -> float:
    """λ = B/(ητD): the weight decay that gives a run the timescale τ."""
    return batch_tokens / (learning_rate * timescale * tokens)


class WeightDecay(Record):
    """A decay as it is given: ``absolute``, the same for every run, or by the ``timescale`` τ that every run gets.

    A number is read as absolute.
    """

    absolute: float | None = Field(default=None, ge=0, lt=10)
    timescale: float | None = Field(default=None, gt=0, le=100, description="share of the run")

    @model_validator(mode="before")
    @classmethod
    def _number(cls, data: Any) -> Any:
        return data if isinstance(data, dict | WeightDecay) else {"absolute": data}

    @model_validator(mode="after")
    def _exactly_one(self) -> WeightDecay:
        if (self.absolute is None) == (self.timescale is None):
            raise ValueError("is a number, or timescale alone")
        return self

    def of(self, batch_tokens: float, learning_rate: float, tokens: float) -> float:
        """λ of one run; ``learning_rate`` is its peak. Rounded, so that no key hangs on the last bit of a quotient."""
        if self.absolute is not None:
            return self.absolute
        assert self.timescale is not None
        return float(f"{weight_decay_of(self.timescale, batch_tokens, learning_rate, tokens):.6g}")


POWER_LINES_BATCH = PowerLinesBatch()
POWER_LINES_TIMESCALE = PowerLinesTimescale()
