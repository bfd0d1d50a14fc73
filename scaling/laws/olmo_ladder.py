"""lr = 0.0047·(N/108e6)^(−1/3)/2 and batch = 2048·160·(N/108e6)^(2/3) tokens: the OLMo ladder (2412.04403)."""

from __future__ import annotations

from typing import ClassVar

from scaling.laws.hyperparameter import HyperparameterLaw
from scaling.laws.law import Parameter

__all__ = ["OLMO_LADDER", "OLMO_LADDER_BATCH", "OlmoLadder", "OlmoLadderBatch"]

_REFERENCE = 108e6


class OlmoLadder(HyperparameterLaw):
    """lr = k·N^a, whatever the tokens."""

    name: ClassVar[str] = "olmo-ladder"
    title: ClassVar[str] = "OLMo ladder"
    quantity: ClassVar[str] = "learning-rate"
    formula: ClassVar[str] = "lr = k·N^a"
    citation: ClassVar[str] = "Bhagia et al. 2412.04403: lr = 0.0047 (N / 108e6)^(-1/3) / 2"
    inputs: ClassVar[tuple[str, ...]] = ("params",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("a", log=False))
    published: ClassVar[tuple[float, ...] | None] = (0.0047 / 2 * _REFERENCE ** (1 / 3), -1 / 3)
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"params": (1.9e8, 1.3e9), "tokens": (3.8e9, 2.6e11)}


class OlmoLadderBatch(HyperparameterLaw):
    """batch = k·N^b tokens, in sequences of 2,048."""

    name: ClassVar[str] = "olmo-ladder-batch"
    title: ClassVar[str] = "OLMo ladder"
    quantity: ClassVar[str] = "batch"
    formula: ClassVar[str] = "batch = k·N^b"
    citation: ClassVar[str] = "Bhagia et al. 2412.04403: batch = 2048 160 (N / 108e6)^(2/3) tokens"
    inputs: ClassVar[tuple[str, ...]] = ("params",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("b", log=False))
    published: ClassVar[tuple[float, ...] | None] = (2048 * 160 * _REFERENCE ** (-2 / 3), 2 / 3)
    ranges: ClassVar[dict[str, tuple[float, float]]] = OlmoLadder.ranges


OLMO_LADDER = OlmoLadder()
OLMO_LADDER_BATCH = OlmoLadderBatch()
