"""What this machine does with some shapes, and the numerics and seconds that follow; ``calibrate`` measures it.

Processors differ: bf16 is four times faster than fp32 on some and eighty times slower on others, whatever their name.
So the real training step is timed at the smallest, the middle and the largest shape; speeds between are interpolated.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from scaling import architectures
from scaling.record import Record
from scaling.shape import ModelShape
from trainer.loop.numerics import Numerics, Precision, processor_name
from trainer.loop.run import EVALUATION_SHARE

__all__ = ["CALIBRATION_VERSION", "TOGETHER", "Calibration", "Speed", "choose_compiled", "flops_per_token"]

CALIBRATION_VERSION = 3
BF16_MARGIN = 1.15
"""bf16 must be this much faster over the measured shapes: away from 1, so that noise doesn't decide."""
COMPILE_MARGIN = 0.1
TOGETHER = 8
"""Runs that are tried in one step."""
TOGETHER_MARGIN = 1.2
"""Several runs in one step must be this much faster: what one of them does to the process, it does to all."""


def flops_per_token(shape: ModelShape) -> int:
    """Of training, exactly."""
    return architectures.get(shape.architecture).training_flops_per_token(shape)


class Speed(Record):
    """The best of several short windows of real training steps, not compiled."""

    shape: ModelShape
    precision: Precision
    kernels: bool = False
    tokens_per_second: float = Field(gt=0)

    @property
    def flops_per_token(self) -> int:
        return flops_per_token(self.shape)


class Calibration(Record):
    """Measured speeds of one process on this machine, while nothing else ran on its cores as far as could be had."""

    version: int = CALIBRATION_VERSION
    device: Literal["cpu", "cuda"]
    processor: str
    torch: str
    threads: int
    batch_sequences: int
    matmul_gflops_fp32: float
    matmul_gflops_bf16: float
    speeds: tuple[Speed, ...]
    shapes: int = Field(description="distinct shapes that were asked for, each compiled by itself")
    compiled_speedup: float | None = Field(
        default=None, description="compiled over the fastest other way in that precision; None if not timed"
    )
    compile_seconds: float | None = Field(default=None, description="first step of the compiled shape")
    together_speedup: float | None = Field(
        default=None, description=f"{TOGETHER} runs of the smallest shape in one step over one after another"
    )

    def numerics(self, precision: Precision, *, compiled: bool = False, kernels: bool = False) -> Numerics:
        return Numerics(
            device=self.device,
            precision=precision,
            compiled=compiled,
            kernels=kernels,
            threads=self.threads,
            processor=self.processor,
            torch=self.torch,
        )

    def choose(self, total_seconds: float | None = None, precision: Precision | None = None) -> Numerics:
        """The numerics for a study of ``total_seconds`` of training that isn't compiled; None means short.

        The fastest way that was measured, equal FLOPs spent on each shape as along a line of constant compute, so that
        none slower than eager fp32 is taken; bf16 only where it is at least ``BF16_MARGIN`` times as fast as fp32;
        compiled by :func:`choose_compiled`. ``precision`` may be given.
        """
        fp32, bf16 = (self._rate(each, self._kernels(each)) for each in ("fp32", "bf16"))
        precision = precision or ("bf16" if bf16 >= BF16_MARGIN * fp32 else "fp32")
        compiled = (
            self.compiled_speedup is not None
            and self.compile_seconds is not None
            and total_seconds is not None
            and choose_compiled(total_seconds, self.shapes, self.compiled_speedup, self.compile_seconds)
        )
        return self.numerics(precision, compiled=compiled, kernels=not compiled and self._kernels(precision))

    def together(self, shape: ModelShape, numerics: Numerics) -> int:
        """How many runs of ``shape`` are best trained in one step (``trainer.loop.together``): one, but where several
        of the smallest measured shape won, shapes up to that one."""
        smallest = min(speed.flops_per_token for speed in self.speeds)
        wins = (self.together_speedup or 0.0) >= TOGETHER_MARGIN and not numerics.compiled
        return TOGETHER if wins and flops_per_token(shape) <= smallest else 1

    def peak_flops_per_second(self, numerics: Numerics) -> float | None:
        """The matrix-product peak that MFU is a share of, for a run on this processor and with as many threads; None
        for others, and for fp16, which isn't measured."""
        gflops = {"fp32": self.matmul_gflops_fp32, "bf16": self.matmul_gflops_bf16}.get(numerics.precision)
        here = (processor_name(self.device), self.device, self.threads)
        if gflops is None or here != (self.processor, numerics.device, numerics.threads):
            return None
        return gflops * 1e9

    def tokens_per_second(self, shape: ModelShape, numerics: Numerics) -> float:
        """Training speed of ``shape``: FLOP/s is interpolated in log FLOPs a token, and constant outside the range."""
        if numerics.compiled:
            best = self._kernels(numerics.precision)
            return self._shape_rate(shape, numerics.precision, best) * (self.compiled_speedup or 1.0)
        return self._shape_rate(shape, numerics.precision, numerics.kernels)

    def seconds(self, shape: ModelShape, tokens: int, numerics: Numerics, *, held_out_tokens: int = 65_536) -> float:
        """Seconds that a run of ``tokens`` takes one worker, with its evaluations and, if compiled, its compilation."""
        rate = self.tokens_per_second(shape, numerics)
        final_evaluation = held_out_tokens / (3 * rate)
        compiling = (self.compile_seconds or 0.0) if numerics.compiled else 0.0
        return tokens * (1 + EVALUATION_SHARE) / rate + final_evaluation + compiling

    def _curve(self, precision: Precision, kernels: bool) -> list[tuple[float, float]]:
        """(FLOPs a token, FLOP/s) of the measured shapes, ascending."""
        return sorted(
            (float(speed.flops_per_token), speed.tokens_per_second * speed.flops_per_token)
            for speed in self.speeds
            if (speed.precision, speed.kernels) == (precision, kernels)
        )

    def _rate(self, precision: Precision, kernels: bool) -> float:
        """FLOP/s while equal FLOPs are spent on each measured shape; 0 if it was not measured."""
        rates = [rate for _, rate in self._curve(precision, kernels)]
        return len(rates) / sum(1 / rate for rate in rates) if rates else 0.0

    def _kernels(self, precision: Precision) -> bool:
        """Whether our kernels are faster in ``precision``."""
        return self._rate(precision, True) > self._rate(precision, False)

    def _shape_rate(self, shape: ModelShape, precision: Precision, kernels: bool) -> float:
        curve = self._curve(precision, kernels) or self._curve(precision, not kernels)
        if not curve:
            raise ValueError(f"{precision} was not measured on {self.processor}: it was far slower than fp32")
        at, speed = np.log(np.array(curve)).T
        flops = flops_per_token(shape)
        return math.exp(float(np.interp(math.log(flops), at, speed))) / flops


def choose_compiled(total_seconds: float, shapes: int, speedup: float, compile_seconds: float) -> bool:
    """Whether compiling saves at least a tenth of a study's training.

    total_seconds: training time otherwise, over all workers. shapes: distinct ones, each compiled once and then read
    from the on-disk cache. speedup: compiled over the fastest other way, measured on one shape. compile_seconds: a cold
    compilation. On a CPU our kernels are the other way, and compiling is seldom worth it (``benchmarks/README.md``).
    """
    saved = total_seconds * (1.0 - 1.0 / speedup) - shapes * compile_seconds
    return saved >= COMPILE_MARGIN * total_seconds
