"""The calibration measures this machine, predicts seconds, and chooses by wide margins."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.architectures import llama
from scaling.architectures.llama import training_flops_per_token
from scaling.shape import ModelShape
from trainer.loop import calibrate as module
from trainer.loop.calibrate import calibrate
from trainer.loop.calibration import TOGETHER, Calibration, Speed, choose_compiled
from trainer.loop.numerics import Numerics, Precision, processor_name


def shape(width: int, layers: int = 2) -> ModelShape:
    return ModelShape(layers=layers, width=width, heads=2, kv_heads=2, ffn_width=2 * width, vocabulary=256, context=32)


def measured(bf16_ratio: float | None, speedup: float | None = None, shapes: int = 5) -> Calibration:
    """A machine of 10 GFLOP/s at the smallest and 40 at the largest of three shapes."""
    speeds = []
    for width, gflops in ((16, 10), (32, 20), (64, 40)):
        per_token = training_flops_per_token(shape(width))
        ratios: list[tuple[Precision, float]] = [("fp32", 1.0)]
        if bf16_ratio is not None:
            ratios.append(("bf16", bf16_ratio))
        speeds += [
            Speed(shape=shape(width), precision=precision, tokens_per_second=ratio * gflops * 1e9 / per_token)
            for precision, ratio in ratios
        ]
    return Calibration(
        device="cpu",
        processor="a processor",
        torch="2",
        threads=1,
        batch_sequences=8,
        matmul_gflops_fp32=100,
        matmul_gflops_bf16=400,
        speeds=tuple(speeds),
        shapes=shapes,
        compiled_speedup=speedup,
        compile_seconds=None if speedup is None else 20.0,
    )


@pytest.mark.parametrize(("ratio", "chosen"), [(None, "fp32"), (0.02, "fp32"), (1.1, "fp32"), (1.5, "bf16")])
def test_bf16_only_where_it_is_clearly_faster(ratio: float | None, chosen: str) -> None:
    assert measured(ratio).choose().precision == chosen


@given(st.lists(st.tuples(*[st.floats(0.2, 5)] * 3), min_size=3, max_size=3))
def test_nothing_slower_than_eager_fp32_is_chosen(ratios: list[tuple[float, float, float]]) -> None:
    """Over the measured shapes, with equal FLOPs spent on each."""
    eager = measured(None)
    ways: list[tuple[Precision, bool]] = [("fp32", True), ("bf16", False), ("bf16", True)]
    more = [
        speed.model_copy(update={"precision": p, "kernels": k, "tokens_per_second": ratio * speed.tokens_per_second})
        for speed, each in zip(eager.speeds, ratios, strict=True)
        for (p, k), ratio in zip(ways, each, strict=True)
    ]
    calibration = eager.model_copy(update={"speeds": (*eager.speeds, *more)})

    def seconds(numerics: Numerics) -> float:
        rates = (calibration.tokens_per_second(s.shape, numerics) * s.flops_per_token for s in eager.speeds)
        return sum(1 / rate for rate in rates)

    chosen = calibration.choose()
    assert seconds(chosen) <= seconds(calibration.numerics("fp32")) * (1 + 1e-9)
    assert seconds(chosen) <= 1.15 * min(seconds(calibration.numerics(p, kernels=k)) for p, k in ways) * (1 + 1e-9)


def test_the_peak_is_that_of_the_precision_on_the_processor_that_was_measured() -> None:
    elsewhere = measured(None)
    here = elsewhere.model_copy(update={"processor": processor_name()})
    numerics = here.numerics("fp32")
    assert here.peak_flops_per_second(numerics) == 100e9
    assert here.peak_flops_per_second(here.numerics("bf16")) == 400e9
    assert here.peak_flops_per_second(here.numerics("fp16")) is None
    assert here.peak_flops_per_second(numerics.model_copy(update={"threads": 2})) is None
    assert elsewhere.peak_flops_per_second(elsewhere.numerics("fp32")) is None


def test_measured_shapes_are_predicted_as_measured_and_others_between() -> None:
    calibration = measured(None)
    numerics = calibration.choose()
    for speed in calibration.speeds:
        assert calibration.tokens_per_second(speed.shape, numerics) == pytest.approx(speed.tokens_per_second)
    fast, between, slow = (calibration.tokens_per_second(shape(width), numerics) for width in (32, 48, 64))
    assert slow < between < fast
    # Outside the range the processor is taken to be as busy as at its end.
    huge = shape(512, layers=12)
    flops_per_second = calibration.tokens_per_second(huge, numerics) * training_flops_per_token(huge)
    assert flops_per_second == pytest.approx(40e9)


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_more_tokens_take_longer_and_at_least_their_training(one: int, more: int) -> None:
    calibration = measured(2.0)
    numerics = calibration.choose()
    rate = calibration.tokens_per_second(shape(48), numerics)
    seconds = calibration.seconds(shape(48), one, numerics)
    assert one / rate <= seconds < calibration.seconds(shape(48), one + more, numerics)


def test_compiles_only_what_pays_for_it() -> None:
    assert not choose_compiled(240, shapes=6, speedup=1.8, compile_seconds=20)
    assert choose_compiled(3600, shapes=6, speedup=1.8, compile_seconds=20)
    assert not choose_compiled(1e9, shapes=6, speedup=1.05, compile_seconds=20)
    assert not choose_compiled(1e9, shapes=6, speedup=0.9, compile_seconds=20)
    assert measured(2.0, speedup=1.8).choose(3600).compiled
    assert not measured(2.0, speedup=1.8).choose(None).compiled
    assert not measured(2.0).choose(1e9).compiled


def test_a_calibration_is_short_and_read_again_for_the_same_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, told = tmp_path / "machine" / "calibration.json", list[float]()
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.02)
    shapes = [shape(width) for width in (16, 24, 32, 64)]
    started = time.monotonic()
    first = calibrate(shapes, 8, cache=cache, progress=lambda what, share: told.append(share))
    assert time.monotonic() - started < 20
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert {speed.shape for speed in first.speeds} == {shape(16), shape(32), shape(64)}
    assert first.matmul_gflops_fp32 > 0.1
    numerics = first.choose()
    assert 0.001 < first.seconds(shape(24), 10_000, numerics) < 60
    assert calibrate(list(reversed(shapes)), 8, cache=cache) == first
    cache.write_text("damaged", encoding="utf-8")
    again = calibrate(shapes, 8, cache=cache)
    assert again.shapes == first.shapes
    assert calibrate(shapes, 8, cache=cache) == again
    assert [path.name for path in cache.parent.iterdir()] == ["calibration.json"]


def test_several_runs_in_one_step_only_where_they_won_and_up_to_that_size() -> None:
    shapes = [llama.shape_for(size, vocabulary=256, context=32) for size in (3e4, 1e5)]
    measured = calibrate(shapes, 4, device="cpu")
    assert measured.together_speedup is not None
    assert measured.together_speedup > 0
    for speedup, wanted in ((1.5, TOGETHER), (1.1, 1), (None, 1)):
        told = measured.model_copy(update={"together_speedup": speedup})
        assert told.together(shapes[0], told.choose()) == wanted
        assert told.together(shapes[1], told.choose()) == 1
        assert told.together(shapes[0], told.numerics("fp32", compiled=True)) == 1
