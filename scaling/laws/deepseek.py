"""lr = 0.3118·C^−0.1250 and batch = 0.2920·C^0.3271 tokens in compute alone: DeepSeek LLM (2401.02954)."""

from __future__ import annotations

from typing import ClassVar

from scaling.laws.hyperparameter import HyperparameterLaw
from scaling.laws.law import Parameter

__all__ = ["DEEPSEEK", "DEEPSEEK_BATCH", "DeepSeek", "DeepSeekBatch"]


class DeepSeek(HyperparameterLaw):
    """lr = k·C^a."""

    name: ClassVar[str] = "deepseek"
    title: ClassVar[str] = "DeepSeek"
    quantity: ClassVar[str] = "learning-rate"
    formula: ClassVar[str] = "lr = k·C^a"
    citation: ClassVar[str] = (
        "DeepSeek-AI 2401.02954: lr = 0.3118 C^-0.1250, batch 0.2920 C^0.3271 tokens, C from 1e17 to 2e19 FLOPs"
    )
    inputs: ClassVar[tuple[str, ...]] = ("flops",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("a", log=False))
    published: ClassVar[tuple[float, ...] | None] = (0.3118, -0.125)
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"flops": (1e17, 2e19)}


class DeepSeekBatch(HyperparameterLaw):
    """batch = k·C^b tokens."""

    name: ClassVar[str] = "deepseek-batch"
    title: ClassVar[str] = "DeepSeek"
    quantity: ClassVar[str] = "batch"
    formula: ClassVar[str] = "batch = k·C^b"
    citation: ClassVar[str] = DeepSeek.citation
    inputs: ClassVar[tuple[str, ...]] = ("flops",)
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("k"), Parameter("b", log=False))
    published: ClassVar[tuple[float, ...] | None] = (0.2920, 0.3271)
    ranges: ClassVar[dict[str, tuple[float, float]]] = DeepSeek.ranges


DEEPSEEK = DeepSeek()
DEEPSEEK_BATCH = DeepSeekBatch()
