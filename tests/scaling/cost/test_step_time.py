"""The model of compute and bandwidth against what the authors of published plans measured."""

from __future__ import annotations

import pytest

from scaling.cost.parallel_plan import Layout
from scaling.cost.step_time import step_time
from scaling.hardware import accelerator
from scaling.shape import ModelShape

from .published import GPT3_175B, GPT_145B, LLAMA_70B, LLAMA_405B


@pytest.mark.parametrize(
    ("name", "shape", "layout", "micro_batches", "mfu"),
    [
        # 2407.21783, table 4; pieces a stage are not published, and one layer each comes near.
        ("h100", LLAMA_405B, Layout(tensor=8, pipeline=16, data=64, zero_stage=2, virtual_stages=8), 32, 0.43),
        ("h100", LLAMA_405B, Layout(tensor=8, pipeline=16, data=128, zero_stage=2, virtual_stages=8), 16, 0.41),
        # 2205.05198, table 5, with sequence parallelism and selective recomputation.
        ("a100", GPT3_175B, Layout(tensor=8, pipeline=8, zero_stage=0, virtual_stages=3), 64, 0.514),
        # 2104.04473, table 1: 148 TFLOP/s with the recomputed forward pass counted, of which three quarters are the
        # model's own.
        (
            "a100",
            GPT_145B,
            Layout(tensor=8, pipeline=8, data=24, zero_stage=0, recompute="full", virtual_stages=2),
            96,
            148 / 312 * 0.75,
        ),
    ],
)
def test_published_plans_come_out_near_their_published_mfu(
    name: str, shape: ModelShape, layout: Layout, micro_batches: int, mfu: float
) -> None:
    assert step_time(shape, layout, accelerator(name), micro_batches).mfu == pytest.approx(mfu, abs=0.03)


def test_the_bubble_is_the_one_of_the_schedule() -> None:
    layout = Layout(tensor=8, pipeline=8, zero_stage=0)
    for pieces in (1, 2, 4):
        timed = step_time(LLAMA_70B, layout.model_copy(update={"virtual_stages": pieces}), accelerator("h100"), 32)
        assert timed.bubble == pytest.approx(7 / pieces / (32 + 7 / pieces))


def test_full_recomputation_costs_a_third_more_products() -> None:
    device, layout = accelerator("h100"), Layout(zero_stage=0)
    kept = step_time(LLAMA_70B, layout, device, 8).seconds
    again = step_time(LLAMA_70B, layout.model_copy(update={"recompute": "full"}), device, 8).seconds
    assert again / kept == pytest.approx(4 / 3)


def test_tensor_groups_across_slow_links_lose() -> None:
    layout = Layout(tensor=8, zero_stage=0)
    fast, slow = (step_time(LLAMA_70B, layout, accelerator(name), 4) for name in ("h100", "rtx4090"))
    assert slow.communication > 2 * fast.communication > 0
