from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.architectures import llama
from scaling.cost.parallel_plan import Layout, layout_line
from scaling.cost.plan import MOST_ROUNDING, USABLE_SHARE, evaluate, fastest_plan
from scaling.errors import UserError
from scaling.hardware import accelerator
from scaling.shape import ModelShape

from .published import LLAMA_8B, LLAMA_70B, LLAMA_405B


def test_the_search_finds_llama_405b_s_own_plan() -> None:
    """2407.21783, table 4: 8 tensor x 16 pipeline x 128 data on 16,384 H100, no recomputation, 41% MFU."""
    plan = fastest_plan(LLAMA_405B, "h100", 16_384, 2048 * 8192)
    assert (plan.tensor, plan.pipeline, plan.context, plan.data) == (8, 16, 1, 128)
    assert plan.recompute == "none" and plan.fits and plan.global_batch_sequences == 2048
    assert plan.mfu == pytest.approx(0.41, abs=0.03)


@settings(max_examples=40)
@given(
    params=st.floats(7.5, 11.5).map(lambda log: 10**log),
    gpus=st.integers(0, 12).map(lambda log: 2**log),
    batch=st.integers(6, 12).map(lambda log: 2**log),
    name=st.sampled_from(["h100", "gb200", "rtx4090", "tpu-v5p", "epyc"]),
)
def test_every_plan_keeps_its_own_rules(params: float, gpus: int, batch: int, name: str) -> None:
    shape = llama.shape_for(params, vocabulary=32_000, context=2048)
    device = accelerator(name)
    try:
        plan = fastest_plan(shape, name, gpus, batch * shape.context)
    except UserError as error:
        assert "no layout puts" in str(error)
        return
    assert plan.devices == gpus
    assert plan.tensor <= device.scale_up_domain
    assert shape.heads % plan.tensor == 0 and shape.ffn_width % plan.tensor == 0
    assert plan.global_batch_sequences == plan.data * plan.micro_batch_sequences * plan.micro_batches
    assert abs(plan.global_batch_sequences - batch) <= MOST_ROUNDING * batch
    assert plan.fits == (plan.memory.total <= USABLE_SHARE * plan.device_bytes) == (plan.why_not is None)
    assert 0 < plan.mfu < device.kernel_share + 1e-9
    assert 0 <= plan.bubble < 1 and -1e-9 <= plan.communication < 1


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    plan = fastest_plan(LLAMA_70B, "h100", 8, 128 * 8192)
    assert not plan.fits and plan.recompute == "full"
    assert plan.why_not is not None and "GiB" in plan.why_not and "80 GiB of a H100" in plan.why_not
    assert fastest_plan(LLAMA_70B, "h100", 64, 512 * 8192).fits


def test_long_sequences_are_cut_into_parts_and_short_ones_not() -> None:
    long = LLAMA_8B.model_copy(update={"context": 131_072})
    assert fastest_plan(long, "h100", 64, 8 * 131_072).context > 1
    assert fastest_plan(LLAMA_8B, "h100", 64, 512 * 8192).context == 1


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (Layout(tensor=16), "tensor is 16: H100 has 8 devices"),
        (Layout(tensor=6), "tensor is 6: it does not divide heads 32"),
        (Layout(pipeline=40), "pipeline is 40: the shape has 32 layers"),
        (Layout(context=3), "context is 3: it does not divide sequences of 8,192"),
        (Layout(data=3), "data is 3 with micro-batches of 1: they do not divide a batch of 16"),
    ],
)
def test_degrees_that_do_not_divide_are_named(layout: Layout, said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate(LLAMA_8B, layout, "h100", 16)


def test_more_replicas_than_sequences_have_no_plan() -> None:
    tiny = ModelShape(layers=2, width=64, heads=2, kv_heads=2, ffn_width=128, vocabulary=512, context=128)
    with pytest.raises(UserError, match=r"no layout puts 4 sequences a step on 1,024 x H100"):
        fastest_plan(tiny, "h100", 1024, 4 * 128)
    lstm = ModelShape(
        architecture="lstm", layers=2, width=32, heads=1, kv_heads=1, ffn_width=32, vocabulary=50, context=12
    )
    with pytest.raises(UserError, match="'lstm' has no parallelism plan"):
        fastest_plan(lstm, "h100", 1, 12)


def test_a_layout_is_written_without_what_it_does_not_use() -> None:
    assert layout_line(Layout(zero_stage=0)) == "one device"
    wide = Layout(tensor=8, pipeline=16, data=128, zero_stage=2, virtual_stages=8)
    assert layout_line(wide) == "8 tensor x 16 pipeline x 128 data, ZeRO-2, 8 pieces a stage"
