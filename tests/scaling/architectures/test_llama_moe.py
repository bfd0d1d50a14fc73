from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scaling.architectures import llama, llama_moe
from scaling.architectures.llama_moe import MoeShape
from scaling.shape import ModelShape
from scaling.shape_account import account

MIXTRAL = MoeShape(
    layers=32, width=4096, heads=32, kv_heads=8, ffn_width=14336, vocabulary=32000, context=4096, tied=False,
    experts=8, experts_per_token=2, expert_ffn_width=14336,
)  # fmt: skip
OLMOE = MoeShape(
    layers=16, width=2048, heads=16, kv_heads=16, ffn_width=1024, vocabulary=50304, context=4096, tied=False,
    experts=64, experts_per_token=8, expert_ffn_width=1024,
)  # fmt: skip


def test_mixtral_has_46_7_billion_parameters_of_which_12_9_are_active() -> None:
    assert llama_moe.count_parameters(MIXTRAL).total == 46_702_792_704
    assert llama_moe.count_active_parameters(MIXTRAL).total == pytest.approx(12.9e9, rel=0.002)


def test_olmoe_has_6_9_billion_parameters_of_which_1_3_are_active() -> None:
    """OLMoE's query and key norms (2 x 16 layers x 2,048) are no part of this shape: 6,919,161,856 with them."""
    assert llama_moe.count_parameters(OLMOE).total + 2 * 16 * 2048 == 6_919_161_856
    assert llama_moe.count_active_parameters(OLMOE).total == pytest.approx(1.3e9, rel=0.02)
    assert OLMOE.sparsity == pytest.approx(0.815, abs=0.002)


experts = st.integers(1, 16)


@given(experts, st.integers(1, 16), st.integers(0, 2), st.integers(0, 3), st.booleans())
def test_what_is_active_never_exceeds_what_is_stored_and_both_grow_with_experts(
    count: int, per_token: int, shared: int, dense: int, tied: bool
) -> None:
    per_token = min(per_token, count)
    shape = MoeShape(
        layers=4, width=64, heads=4, kv_heads=2, ffn_width=128, vocabulary=256, context=64, tied=tied,
        experts=count, experts_per_token=per_token, expert_ffn_width=32, shared_experts=shared, dense_layers=dense,
    )  # fmt: skip
    stored, active = llama_moe.count_parameters(shape), llama_moe.count_active_parameters(shape)
    assert active.total <= stored.total
    assert (active.total == stored.total) == (per_token == count)
    more = shape.model_copy(update={"experts": count + 1})
    assert llama_moe.count_parameters(more).nonembedding - stored.nonembedding == (4 - dense) * (64 + 3 * 64 * 32)
    # A token pays for one router column more, and for no expert that it is not sent to.
    extra = llama_moe.forward_flops(more, 8).total - llama_moe.forward_flops(shape, 8).total
    assert extra == 2 * (4 - dense) * 64


def test_one_expert_for_every_token_is_the_dense_model_and_its_router() -> None:
    dense = ModelShape(layers=6, width=128, heads=4, kv_heads=4, ffn_width=384, vocabulary=512, context=128)
    one = MoeShape(**dense.model_dump(exclude={"architecture"}), experts=1, experts_per_token=1, expert_ffn_width=384)
    router = 6 * 128
    assert llama_moe.count_parameters(one).total == llama.count_parameters(dense).total + router
    assert llama_moe.training_flops_per_token(one) == llama.training_flops_per_token(dense) + 6 * router


def test_matrices_cost_two_flops_an_active_parameter() -> None:
    forward, active = llama_moe.forward_flops(OLMOE, 1), llama_moe.count_active_parameters(OLMOE)
    norms = (2 * OLMOE.layers + 1) * OLMOE.width
    assert forward.total - forward.scores == 2 * (active.with_head - norms)


def test_the_account_of_a_mixture_tells_active_from_stored() -> None:
    books = account(MIXTRAL)
    assert books.six_n["total"] == 6 * books.active.total < 6 * books.total.total
    assert books.sparsity == pytest.approx(MIXTRAL.sparsity)
    assert "12.9B" in books.summary() and "46.7B" in books.summary()


def test_shapes_that_can_not_route_are_refused() -> None:
    with pytest.raises(ValidationError, match="over experts"):
        MoeShape(**(MIXTRAL.model_dump() | {"experts_per_token": 9}))
    with pytest.raises(ValidationError, match="no layer"):
        MoeShape(**(MIXTRAL.model_dump() | {"dense_layers": 32}))
