"""lr = 1.79·N^−0.713·D^0.307 and batch = 0.58·D^0.571 tokens: Step Law, Li et al. (2503.04715)."""

from __future__ import annotations

from typing import ClassVar

from scaling.laws.hyperparameter import HyperparameterLaw
from scaling.laws.law import Parameter

__all__ = ["STEP_LAW", "STEP_LAW_BATCH", "StepLaw", "StepLawBatch"]


class StepLaw(HyperparameterLaw):
    """lr = k·N^a·D^b, the peak of a schedule that ends at 1e-5."""

    name: ClassVar[str] = "step-law"
    title: ClassVar[str] = "Step Law"
    quantity: ClassVar[str] = "learning-rate"
    formula: ClassVar[str] = "lr = k·N^a·D^b"
    citation: ClassVar[str] = "Li et al. 2503.04715: lr = 1.79 N^-0.713 D^0.307, batch 0.58 D^0.571 tokens"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("k"), Parameter("a", log=False), Parameter("b", log=False),
    )  # fmt: skip
    published: ClassVar[tuple[float, ...] | None] = (1.79, -0.713, 0.307)
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"params": (6e7, 1e9), "tokens": (2e9, 1e11)}


class StepLawBatch(HyperparameterLaw):
    """batch = k·D^c tokens, whatever the size of the model."""

    name: ClassVar[str] = "step-law-batch"
    title: ClassVar[str] = "Step Law"
    quantity: ClassVar[str] = "batch"
    formula: ClassVar[str] = "batch = k·D^c"
    citation: ClassVar[str] = StepLaw.citation
    inputs: ClassVar[tuple[str, ...]] = ("tokens",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("c", log=False))
    published: ClassVar[tuple[float, ...] | None] = (0.58, 0.571)
    ranges: ClassVar[dict[str, tuple[float, float]]] = StepLaw.ranges


STEP_LAW = StepLaw()
STEP_LAW_BATCH = StepLawBatch()
