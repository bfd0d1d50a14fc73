"""Measures a :class:`trainer.loop.calibration.Calibration`: real training steps, in every way worth trying.

At the smallest, the middle and the largest shape each way takes short windows of steps, turn by turn, and the best
window counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from scaling.architectures import total_params
from scaling.record import Record, content_hash
from scaling.run_spec import OptimizerSpec
from scaling.shape import ModelShape
from trainer.loop.calibration import CALIBRATION_VERSION, TOGETHER, Calibration, Speed, flops_per_token
from trainer.loop.memory import device_memory
from trainer.loop.numerics import Numerics, Precision, cxx_compiler_available, processor_name
from trainer.loop.optimizer import Optimizer
from trainer.loop.step import TrainingStep
from trainer.loop.together import StackedModels, stackable
from trainer.loop.train import applied
from trainer.models import build, kernels, model_class
from trainer.whole_file import write_whole

__all__ = ["Progress", "calibrate"]

BF16_WORTH_TIMING = 1.5
"""Below this ratio of matrix-product speeds bf16 can't win over its conversions, and timing it may take minutes."""
COMPILE_WORTH_TIMING_SECONDS = 300.0
WINDOWS = 6
WINDOW_SECONDS = 0.15
LONGEST_STEP_SECONDS = 0.5
LONGEST_SEQUENCE_SECONDS = 2.0
"""At the speed of plain products: a shape of which one sequence takes longer is not timed."""

_BYTES_A_PARAMETER = 16
"""Weight, gradient and AdamW's two moments in fp32."""
_MEMORY_SHARE = 0.25
"""Of the memory, what one model may take here: two are timed side by side, and activations come on top."""

Progress = Callable[[str, float], None]


def calibrate(
    shapes: Sequence[ModelShape],
    batch_sequences: int,
    *,
    device: Literal["cpu", "cuda"] | None = None,
    precision: Precision | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    planned_seconds: float | None = None,
) -> Calibration:
    """Time the training step of the smallest, the middle and the largest of ``shapes`` on one thread, of those that the
    machine's memory and a minute allow; the speed of larger ones is taken for that of the largest timed.

    batch_sequences: sequences a training step holds. device: CUDA if there is one, by default. precision: what runs
    will be trained in, if that is not for the calibration to choose. cache: a JSON file for the answer; it is used
    again while processor, torch and shapes are the same. progress: told what is being done and the share that is.
    planned_seconds: how much eager training is planned; over ``COMPILE_WORTH_TIMING_SECONDS`` the middle shape is
    compiled and timed too, which takes 5 to 30 s, if its architecture can be.
    """
    report = progress or (lambda _what, _share: None)
    chosen: Literal["cpu", "cuda"] = device or ("cuda" if torch.cuda.is_available() else "cpu")
    distinct = sorted(set(shapes), key=flops_per_token)
    long_enough = (planned_seconds or 0.0) > COMPILE_WORTH_TIMING_SECONDS
    compilable = all(model_class(shape.architecture).compilable for shape in distinct)
    compiling = long_enough and compilable and cxx_compiler_available()
    given = {} if precision is None else {"precision": precision}
    key = content_hash(
        given
        | {
            "version": CALIBRATION_VERSION,
            "processor": processor_name(chosen),
            "torch": str(torch.__version__),
            "shapes": [shape.model_dump(mode="json") for shape in distinct],
            "batch_sequences": batch_sequences,
            "compiling": compiling,
            "kernels": kernels.available(),
        }
    )
    if cache is not None and (found := _read(cache, key)) is not None:
        return found
    calibration = _measure(distinct, batch_sequences, chosen, precision, compiling, report)
    if cache is not None:
        _write(cache, key, calibration)
    return calibration


def _measure(
    shapes: list[ModelShape],
    sequences: int,
    device: Literal["cpu", "cuda"],
    precision: Precision | None,
    compiling: bool,
    report: Progress,
) -> Calibration:
    with applied(Numerics(device=device)):
        report("calibrating", 0.0)
        fp32, bf16 = (_matmul_gflops(device, dtype) for dtype in (torch.float32, torch.bfloat16))
        own = device == "cpu" and kernels.available()
        ways: list[tuple[Precision, bool]] = [("fp32", False), ("fp32", True)] if own else [("fp32", False)]
        if bf16 >= BF16_WORTH_TIMING * fp32:
            ways.append(("bf16", own))
        bearable = [shape for shape in shapes if _bearable(shape, device, fp32)] or shapes[:1]
        timed = [bearable[index] for index in sorted({0, len(bearable) // 2, len(bearable) - 1})]
        speeds: list[Speed] = []
        for done, shape in enumerate(timed):
            speeds += _speeds(shape, sequences, ways, device, fp32)
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
            shapes=len(shapes),
        )
        if compiling:
            middle, fastest = timed[len(timed) // 2], calibration.choose()
            both = [fastest, calibration.numerics(fastest.precision, compiled=True)]
            other, compiled = (_StepTimer(middle, sequences, numerics, fp32) for numerics in both)
            slow, fast = _best_windows([other, compiled])
            calibration = calibration.model_copy(
                update={"compiled_speedup": slow / fast, "compile_seconds": compiled.first_seconds}
            )
            report("calibrating", 1.0)
        together = _together_speedup(timed[0], sequences, calibration, precision)
        return calibration.model_copy(update={"together_speedup": together})


def _bearable(shape: ModelShape, device: Literal["cpu", "cuda"], gflops: float) -> bool:
    """Whether memory holds the shape with room to spare, and a step of one sequence takes no minute."""
    if total_params(shape) * _BYTES_A_PARAMETER > _MEMORY_SHARE * device_memory(device):
        return False
    return flops_per_token(shape) * shape.context <= LONGEST_SEQUENCE_SECONDS * gflops * 1e9


def _together_speedup(
    shape: ModelShape, sequences: int, calibration: Calibration, precision: Precision | None
) -> float | None:
    """Of ``TOGETHER`` runs of ``shape`` in one step over as many one after another; None if they can't be stacked."""
    if not stackable(shape):
        return None
    numerics, gflops = calibration.choose(precision=precision), calibration.matmul_gflops_fp32
    alone = _StepTimer(shape, sequences, numerics, gflops)
    if alone.tokens < sequences * shape.context:
        return None
    together = _StackTimer(shape, sequences, numerics.for_together(TOGETHER), gflops)
    one, all_of_them = _best_windows([alone, together])
    return TOGETHER * one / all_of_them


def _speeds(
    shape: ModelShape,
    sequences: int,
    ways: list[tuple[Precision, bool]],
    device: Literal["cpu", "cuda"],
    gflops: float,
) -> list[Speed]:
    timers = [
        _StepTimer(shape, sequences, Numerics(device=device, precision=precision, kernels=own), gflops)
        for precision, own in ways
    ]
    return [
        Speed(shape=shape, precision=precision, kernels=own, tokens_per_second=timer.tokens / best)
        for (precision, own), timer, best in zip(ways, timers, _best_windows(timers), strict=True)
    ]


def _best_windows(timers: Sequence[_StepTimer]) -> list[float]:
    """Seconds a step of each timer in its best window; turn by turn, so that other processes disturb all alike."""
    windows = [[timer.window() for timer in timers] for _ in range(WINDOWS)]
    return [min(each) for each in zip(*windows, strict=True)]


class _StepTimer:
    """A model ready to take training steps on random tokens; a step too long is timed with fewer sequences."""

    def __init__(self, shape: ModelShape, sequences: int, numerics: Numerics, gflops: float) -> None:
        flops = flops_per_token(shape) * shape.context
        affordable = int(LONGEST_STEP_SECONDS * gflops * 1e9 / flops)
        sequences = max(1, min(sequences, affordable))
        self.tokens = sequences * shape.context
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(shape.vocabulary, (2, sequences, shape.context), generator=generator)
        self._x_BT, self._y_BT = drawn.to(numerics.device)
        self._build(shape, numerics)
        self.first_seconds = self._timed(1)
        self._steps = max(1, round(WINDOW_SECONDS / self._timed(1)))

    def _build(self, shape: ModelShape, numerics: Numerics) -> None:
        self._step = _training_step(shape, numerics)

    def _take_step(self) -> Tensor:
        return self._step(self._x_BT, self._y_BT, 1e-3)[0]

    def window(self) -> float:
        """Seconds of one step, the mean over a short window."""
        return self._timed(self._steps) / self._steps

    def _timed(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            loss = self._take_step()
        float(loss)  # waits for the device
        return time.perf_counter() - started


class _StackTimer(_StepTimer):
    """As many models as the numerics say, in one step."""

    def _build(self, shape: ModelShape, numerics: Numerics) -> None:
        self._steps_K = [_training_step(shape, numerics) for _ in range(numerics.together)]
        self._stack = StackedModels([step.model for step in self._steps_K], numerics)
        for step in self._steps_K:
            step.optimizer.follow_parameters()
        self._x_KBT, self._y_KBT = (
            each.expand(numerics.together, *each.shape).contiguous() for each in (self._x_BT, self._y_BT)
        )

    def _take_step(self) -> Tensor:
        loss_K = self._stack.accumulate(self._x_KBT, self._y_KBT)
        for step, loss in zip(self._steps_K, loss_K, strict=True):
            step.update(loss, 1e-3)
        return loss_K[0]


def _training_step(shape: ModelShape, numerics: Numerics) -> TrainingStep:
    model = build(shape)
    model.initialise(0)
    model.to(numerics.device)
    optimizer = OptimizerSpec(learning_rate=1e-3)
    return TrainingStep(model, Optimizer(model, optimizer), numerics, optimizer.gradient_clip)


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
