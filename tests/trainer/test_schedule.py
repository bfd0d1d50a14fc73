"""The learning rate over a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from trainer.loop.optimizer import Optimizer, clip_gradients
from trainer.loop.schedule import learning_rate, schedule_factor
from trainer.models.llama import Llama


def test_warms_up_stays_and_cools_down_to_zero() -> None:
    schedule = ScheduleSpec(warmup_tokens=100, cooldown_tokens=400, cooldown_shape="linear")
    factors = [schedule_factor(schedule, tokens, 1000) for tokens in (0, 50, 100, 350, 600, 800, 1000)]
    assert factors == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0])


def test_the_1_sqrt_cooldown_follows_haegele() -> None:
    schedule = ScheduleSpec(warmup_tokens=0, cooldown_tokens=400)
    assert schedule_factor(schedule, 700, 1000) == pytest.approx(1 - (100 / 400) ** 0.5)
    assert schedule_factor(schedule, 1000, 1000) == 0.0


def test_a_cosine_falls_to_its_floor_along_half_a_cosine() -> None:
    schedule = ScheduleSpec(kind="cosine", warmup_tokens=200, floor=0.1)
    factors = [schedule_factor(schedule, tokens, 1000) for tokens in (0, 100, 200, 400, 600, 1000)]
    quarter = 0.1 + 0.9 * (1 + 0.5**0.5) / 2
    assert factors == pytest.approx([0, 0.5, 1, quarter, 0.55, 0.1])


@given(
    st.integers(0, 500),
    st.integers(0, 500),
    st.sampled_from(["linear", "1-sqrt", "cosine"]),
    st.floats(0, 1),
    st.lists(st.floats(0, 1000), min_size=2, max_size=30),
)
def test_rises_before_and_falls_after_the_stable_phase(
    warmup: int, cooldown: int, shape: str, floor: float, at: list[float]
) -> None:
    falls = {"kind": "cosine"} if shape == "cosine" else {"cooldown_tokens": cooldown, "cooldown_shape": shape}
    schedule = ScheduleSpec.model_validate({"warmup_tokens": warmup, "floor": floor, **falls})
    factors = {tokens: schedule_factor(schedule, tokens, 1000) for tokens in sorted(at)}
    assert all(0 <= factor <= 1 for factor in factors.values())
    top = warmup if shape == "cosine" else 1000 - cooldown
    rising = [factor for tokens, factor in factors.items() if tokens <= top]
    falling = [factor for tokens, factor in factors.items() if tokens >= warmup]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(factor >= floor for factor in falling) or schedule.floor == 0
    assert schedule_factor(schedule, 1000, 1000) == pytest.approx(1.0 if falls.get("cooldown_tokens") == 0 else floor)


def test_no_step_is_spent_at_rate_zero(tiny_spec: Callable[..., RunSpec]) -> None:
    spec = tiny_spec(steps=40)
    rates = [learning_rate(spec, step) for step in range(spec.steps)]
    assert min(rates) > 0
    assert max(rates) == spec.optimizer.learning_rate


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_layers_matrices_and_an_untied_head_decay(tied: bool) -> None:
    shape = ModelShape(layers=2, width=16, heads=2, kv_heads=2, ffn_width=32, vocabulary=40, context=8, tied=tied)
    model = Llama(shape)
    model.initialise(0)
    optimizer = Optimizer(model, OptimizerSpec(learning_rate=0.1, weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1)
    for name, parameter in model.named_parameters():
        decays = name.endswith("_proj.weight") or (name == "lm_head.weight" and not tied)
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if decays else 1.0))


@given(st.floats(1e-3, 1e3), st.floats(0.1, 10))
def test_clipping_bounds_the_norm_and_keeps_the_direction(scale: float, largest: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    gradients = [torch.tensor([1.0, -2.0, 2.0]) * scale, torch.full((2, 2), 2.0) * scale]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    assert clip_gradients(parameters, largest).item() == pytest.approx(5 * scale, rel=1e-5)
    factor = min(1.0, largest / (5 * scale))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * factor, rtol=1e-4, atol=1e-6)
