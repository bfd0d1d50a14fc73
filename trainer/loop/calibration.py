"""What this machine does with these shapes, measured in seconds, and the numerics that follow from it.

Processors differ: bf16 is four times faster than fp32 on some and eighty times slower on others, whatever their name.
So the real training step is timed at the smallest, the middle and the largest shape; speeds between are interpolated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, ValidationError

from scaling import architectures
from scaling.record import Record, content_hash
from scaling.run_spec import OptimizerSpec
from scaling.shape import ModelShape
from trainer.loop.numerics import Numerics, Precision, cxx_compiler_available, processor_name
from trainer.loop.optimizer import Optimizer
from trainer.loop.step import TrainingStep
from trainer.loop.train import EVALUATION_SHARE
from trainer.models import build, model_class
from trainer.whole_file import write_whole

__all__ = ["Calibration", "Speed", "calibrate", "choose_compiled"]

BF16_WORTH_TIMING = 1.5
"""Below this ratio of matrix-product speeds bf16 can't win over its conversions, and timing it may take minutes."""
BF16_MARGIN = 1.3
"""bf16 must be this much faster on the largest shape: far from 1, so that noise doesn't decide."""
COMPILE_MARGIN = 0.1
COMPILE_WORTH_TIMING_SECONDS = 300.0
WINDOWS = 6
WINDOW_SECONDS = 0.2
LONGEST_STEP_SECONDS = 0.5
_VERSION = 1

Progress = Callable[[str, float], None]


def _flops_per_token(shape: ModelShape) -> int:
    return architectures.get(shape.architecture).training_flops_per_token(shape)


class Speed(Record):
    """The best of several short windows of real training steps, eager."""

    shape: ModelShape
    precision: Precision
    tokens_per_second: float = Field(gt=0)

    @property
    def flops_per_token(self) -> int:
        return _flops_per_token(self.shape)


class Calibration(Record):
    """Measured speeds of one process on this machine, while nothing else ran on its cores as far as could be had."""

    version: int = _VERSION
    device: Literal["cpu", "cuda"]
    processor: str
    torch: str
    threads: int
    batch_sequences: int
    matmul_gflops_fp32: float
    matmul_gflops_bf16: float
    speeds: tuple[Speed, ...]
    shapes: int = Field(description="distinct shapes that were asked for, each compiled by itself")
    compiled_speedup: float | None = Field(default=None, description="compiled over eager speed; None if not timed")
    compile_seconds: float | None = Field(default=None, description="first step of the compiled shape")

    def numerics(self, precision: Precision, *, compiled: bool = False) -> Numerics:
        return Numerics(
            device=self.device,
            precision=precision,
            compiled=compiled,
            threads=self.threads,
            processor=self.processor,
            torch=self.torch,
        )

    def choose(self, total_seconds: float | None = None) -> Numerics:
        """The numerics for a study of ``total_seconds`` of eager training; None means short.

        bf16 where it is at least ``BF16_MARGIN`` times as fast as fp32 on the largest shape; compiled by
        :func:`choose_compiled`.
        """
        fp32, bf16 = (self._curve(precision) for precision in ("fp32", "bf16"))
        precision: Precision = "bf16" if bf16 and bf16[-1][1] >= BF16_MARGIN * fp32[-1][1] else "fp32"
        compiled = (
            self.compiled_speedup is not None
            and self.compile_seconds is not None
            and total_seconds is not None
            and choose_compiled(total_seconds, self.shapes, self.compiled_speedup, self.compile_seconds)
        )
        return self.numerics(precision, compiled=compiled)

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
        rate = self._eager_rate(shape, numerics.precision)
        return rate * ((self.compiled_speedup or 1.0) if numerics.compiled else 1.0)

    def seconds(self, shape: ModelShape, tokens: int, numerics: Numerics, *, held_out_tokens: int = 65_536) -> float:
        """Seconds that a run of ``tokens`` takes one worker, with its evaluations and, if compiled, its compilation."""
        rate = self.tokens_per_second(shape, numerics)
        final_evaluation = held_out_tokens / (3 * rate)
        compiling = (self.compile_seconds or 0.0) if numerics.compiled else 0.0
        return tokens * (1 + EVALUATION_SHARE) / rate + final_evaluation + compiling

    def _curve(self, precision: Precision) -> list[tuple[float, float]]:
        """(FLOPs a token, FLOP/s) of the measured shapes, ascending."""
        return sorted(
            (float(speed.flops_per_token), speed.tokens_per_second * speed.flops_per_token)
            for speed in self.speeds
            if speed.precision == precision
        )

    def _eager_rate(self, shape: ModelShape, precision: Precision) -> float:
        curve = self._curve(precision)
        if not curve:
            raise ValueError(f"{precision} was not measured on {self.processor}: it was far slower than fp32")
        at, speed = np.log(np.array(curve)).T
        flops_per_token = _flops_per_token(shape)
        return math.exp(float(np.interp(math.log(flops_per_token), at, speed))) / flops_per_token


def choose_compiled(total_seconds: float, shapes: int, speedup: float, compile_seconds: float) -> bool:
    """Whether compiling saves at least a tenth of a study's training.

    total_seconds: training time when eager, over all workers. shapes: distinct ones, each compiled once and then read
    from the on-disk cache. speedup: compiled over eager, measured on one shape. compile_seconds: a cold compilation.

    Measured on an EPYC with AVX512-BF16, one thread, 90k to 1M parameters: compiled is 0.97 to 1.14 times as fast as
    our eager step (whose head and cross-entropy are fused already) and costs 4 to 16 s a shape: seldom worth it there.
    """
    saved = total_seconds * (1.0 - 1.0 / speedup) - shapes * compile_seconds
    return saved >= COMPILE_MARGIN * total_seconds


def calibrate(
    shapes: Sequence[ModelShape],
    batch_sequences: int,
    *,
    device: Literal["cpu", "cuda"] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    planned_seconds: float | None = None,
) -> Calibration:
    """Time the training step of the smallest, the middle and the largest of ``shapes`` on one thread.

    batch_sequences: sequences a training step holds. device: CUDA if there is one, by default. cache: a JSON file for
    the answer; it is used again while processor, torch and shapes are the same. progress: told what is being done and
    the share that is. planned_seconds: how much eager training is planned; over ``COMPILE_WORTH_TIMING_SECONDS`` the
    middle shape is compiled and timed too, which takes 5 to 30 s, if its architecture can be.
    """
    report = progress or (lambda _what, _share: None)
    chosen: Literal["cpu", "cuda"] = device or ("cuda" if torch.cuda.is_available() else "cpu")
    distinct = sorted(set(shapes), key=_flops_per_token)
    measured = sorted({0, len(distinct) // 2, len(distinct) - 1})
    timed = [distinct[index] for index in measured]
    long_enough = (planned_seconds or 0.0) > COMPILE_WORTH_TIMING_SECONDS
    compilable = all(model_class(shape.architecture).compilable for shape in distinct)
    compiling = long_enough and compilable and cxx_compiler_available()
    key = content_hash(
        {
            "version": _VERSION,
            "processor": processor_name(chosen),
            "torch": str(torch.__version__),
            "shapes": [shape.model_dump(mode="json") for shape in distinct],
            "batch_sequences": batch_sequences,
            "compiling": compiling,
        }
    )
    if cache is not None and (found := _read(cache, key)) is not None:
        return found
    calibration = _measure(timed, len(distinct), batch_sequences, chosen, compiling, report)
    if cache is not None:
        _write(cache, key, calibration)
    return calibration


def _measure(
    timed: list[ModelShape],
    shapes: int,
    sequences: int,
    device: Literal["cpu", "cuda"],
    compiling: bool,
    report: Progress,
) -> Calibration:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        report("calibrating", 0.0)
        fp32, bf16 = (_matmul_gflops(device, dtype) for dtype in (torch.float32, torch.bfloat16))
        precisions: list[Precision] = ["fp32", "bf16"] if bf16 >= BF16_WORTH_TIMING * fp32 else ["fp32"]
        speeds: list[Speed] = []
        for done, shape in enumerate(timed):
            speeds += _eager_speeds(shape, sequences, precisions, device, fp32)
            report("calibrating", (done + 1) / (len(timed) + compiling))
        calibration = Calibration(
            device=device,
            processor=processor_name(device),
            torch=str(torch.__version__),
            threads=1,
            batch_sequences=sequences,
            matmul_gflops_fp32=fp32,
            matmul_gflops_bf16=bf16,
            speeds=tuple(speeds),
            shapes=shapes,
        )
        if compiling:
            middle, precision = timed[len(timed) // 2], calibration.choose().precision
            both = [calibration.numerics(precision, compiled=compiled) for compiled in (False, True)]
            eager, compiled = (_StepTimer(middle, sequences, numerics, fp32) for numerics in both)
            slow, fast = _best_windows([eager, compiled])
            calibration = calibration.model_copy(
                update={"compiled_speedup": slow / fast, "compile_seconds": compiled.first_seconds}
            )
            report("calibrating", 1.0)
        return calibration
    finally:
        torch.set_num_threads(threads)


def _eager_speeds(
    shape: ModelShape, sequences: int, precisions: list[Precision], device: Literal["cpu", "cuda"], gflops: float
) -> list[Speed]:
    timers = [_StepTimer(shape, sequences, Numerics(device=device, precision=p), gflops) for p in precisions]
    return [
        Speed(shape=shape, precision=precision, tokens_per_second=timer.tokens / best)
        for precision, timer, best in zip(precisions, timers, _best_windows(timers), strict=True)
    ]


def _best_windows(timers: Sequence[_StepTimer]) -> list[float]:
    """Seconds a step of each timer in its best window; turn by turn, so that other processes disturb all alike."""
    windows = [[timer.window() for timer in timers] for _ in range(WINDOWS)]
    return [min(each) for each in zip(*windows, strict=True)]


class _StepTimer:
    """A model ready to take training steps on random tokens; a step too long is timed with fewer sequences."""

    def __init__(self, shape: ModelShape, sequences: int, numerics: Numerics, gflops: float) -> None:
        flops = _flops_per_token(shape) * shape.context
        affordable = int(LONGEST_STEP_SECONDS * gflops * 1e9 / flops)
        sequences = max(1, min(sequences, affordable))
        self.tokens = sequences * shape.context
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(shape.vocabulary, (2, sequences, shape.context), generator=generator)
        self._x_BT, self._y_BT = drawn.to(numerics.device)
        model = build(shape)
        model.initialise(0)
        model.to(numerics.device)
        optimizer = OptimizerSpec(learning_rate=1e-3)
        self._step = TrainingStep(model, Optimizer(model, optimizer), numerics, optimizer.gradient_clip)
        self.first_seconds = self._timed(1)
        self._steps = max(1, round(WINDOW_SECONDS / self._timed(1)))

    def window(self) -> float:
        """Seconds of one step, the mean over a short window."""
        return self._timed(self._steps) / self._steps

    def _timed(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            loss, _, _ = self._step(self._x_BT, self._y_BT, 1e-3)
        float(loss)  # waits for the device
        return time.perf_counter() - started


def _matmul_gflops(device: str, dtype: torch.dtype) -> float:
    """Best GFLOP/s of a square matrix product; a slow one is stopped after its first try."""
    size = 512 if device == "cpu" else 4096
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    deadline = time.perf_counter() + 0.3
    for turn in range(200):
        started = time.perf_counter()
        float((a @ b)[0, 0])
        seconds = time.perf_counter() - started
        best = min(best, seconds)
        if time.perf_counter() > deadline and turn:
            break
    return 2 * size**3 / best / 1e9


def _read(cache: Path, key: str) -> Calibration | None:
    """The calibration in ``cache`` if it answers ``key``; whatever can't be read is measured again."""
    try:
        entry = _CacheEntry.model_validate_json(cache.read_bytes())
    except (OSError, ValidationError):
        return None
    return entry.calibration if entry.key == key else None


class _CacheEntry(Record):
    key: str
    calibration: Calibration


def _write(cache: Path, key: str, calibration: Calibration) -> None:
    write_whole(cache, _CacheEntry(key=key, calibration=calibration).model_dump_json(indent=1))
