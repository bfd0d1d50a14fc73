"""What a study file may say of its design: a kind, and the keys of that kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from scaling.record import Record

__all__ = [
    "CsvDesign",
    "CurvesDesign",
    "DesignSettings",
    "GridDesign",
    "InformationDesign",
    "IsoflopSettings",
    "RatioDesign",
]

Sizes = tuple[Annotated[float, Field(gt=0)], ...]


class _Any(Record):
    """What every kind of design has: a hold-out run of at least 4 times the largest, forecast before it is trained."""

    hold_out: float = Field(default=4.2, ge=4, le=1000)
    replicates: int = Field(default=2, ge=1, le=10)
    noise: float = Field(default=0.004, gt=0, lt=0.2)
    """SD of log loss from one seed to another that is planned with."""


class InformationDesign(_Any):
    """The runs that shrink the answer's interval most for what they cost (``scaling.design.information``)."""

    kind: Literal["information"] = "information"
    branches: bool = True
    most_runs: int = Field(default=32, ge=8, le=1000)
    largest_share: float = Field(default=0.12, gt=0, lt=1)
    """Of the budget, what one run may cost: the hold-out costs a multiple of that."""
    smallest_share: float = Field(default=3e-3, gt=0, lt=1)
    """Of the budget, what one run costs at least: far below the larger ones, runs follow no law with them."""
    ratio_reach: float = Field(default=10.0, ge=2, le=100)
    """Runs have at most this factor more or fewer tokens a parameter than is expected to be optimal."""
    fewest_steps: int = Field(default=200, ge=25)
    smallest_params: float = Field(default=0.0, ge=0)
    minutes_per_run: float | None = Field(default=None, gt=0)
    rounds: int = Field(default=1, ge=1, le=5)
    """The budget is spent in so many equal parts, each laid out by what those before have shown."""


class IsoflopSettings(_Any):
    """Budgets a ratio apart, and at each the same sizes around the expected optimum."""

    kind: Literal["isoflop"] = "isoflop"
    budgets: int = Field(default=4, ge=3, le=20)
    ratio: float = Field(default=2.2, gt=1.2, le=100)
    sizes: int = Field(default=5, ge=4, le=20)
    size_step: float = Field(default=1.7, gt=1.1, le=10)
    tokens_per_param: float = Field(default=9, gt=0)


class RatioDesign(_Any):
    """Sizes a step apart, each trained on the same multiples of its parameters in tokens."""

    kind: Literal["ratio"] = "ratio"
    sizes: int = Field(default=5, ge=3, le=20)
    size_step: float = Field(default=1.7, gt=1.1, le=10)
    tokens_per_param: Sizes = Field(default=(5, 10, 20, 40), min_length=1)


class GridDesign(_Any):
    """Every size on every number of tokens."""

    kind: Literal["grid"] = "grid"
    params: Sizes = Field(min_length=1)
    tokens: Sizes = Field(min_length=1)


class CurvesDesign(_Any):
    """Kaplan's: a few sizes, each one long trunk from which branches leave at many numbers of tokens."""

    kind: Literal["curves"] = "curves"
    sizes: int = Field(default=5, ge=3, le=20)
    size_step: float = Field(default=1.7, gt=1.1, le=10)
    points: int = Field(default=6, ge=2, le=50)
    tokens_per_param: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (4, 40)


class CsvDesign(_Any):
    """The runs of a table with the columns params and tokens."""

    kind: Literal["csv"] = "csv"
    file: str


def _named_kind(data: Any) -> Any:
    """A design without a kind is one by information; a word is a kind with all its defaults."""
    if isinstance(data, str):
        return {"kind": data}
    return {"kind": "information"} | data if isinstance(data, dict) else data


_Kinds = InformationDesign | IsoflopSettings | RatioDesign | GridDesign | CurvesDesign | CsvDesign
DesignSettings = Annotated[Annotated[_Kinds, Field(discriminator="kind")], BeforeValidator(_named_kind)]
