"""The decoder against its arithmetic: parameters, FLOPs, causality, and the fused head against the plain one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling.architectures.llama import count_parameters, inference_flops_per_token, training_flops_per_token
from scaling.shape import ModelShape
from trainer.models.linear_cross_entropy import linear_cross_entropy, token_nats
from trainer.models.llama import Llama, rotary_tables, rotate


@st.composite
def shapes(draw: Callable[..., int], grouped: bool = True) -> ModelShape:
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * (draw(st.integers(1, 3)) if grouped else 1)
    return ModelShape(
        layers=draw(st.integers(1, 4)),
        width=heads * 2 * draw(st.integers(4, 12)),
        heads=heads,
        kv_heads=kv_heads,
        ffn_width=8 * draw(st.integers(1, 12)),
        vocabulary=draw(st.integers(2, 300)),
        context=draw(st.integers(2, 24)),
        tied=draw(st.booleans()),
    )


@given(shapes())
@settings(deadline=None, max_examples=40)
def test_parameters_are_those_that_scaling_counts(shape: ModelShape) -> None:
    with torch.device("meta"):
        model = Llama(shape)
    counted = count_parameters(shape)
    assert sum(p.numel() for p in model.parameters()) == counted.total
    outside = sum(p.numel() for n, p in model.named_parameters() if "embed_tokens" not in n and "lm_head" not in n)
    assert outside == counted.nonembedding
    assert outside + model.lm_head.weight.numel() == counted.with_head


@given(shapes(grouped=False), st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_flops_are_those_that_pytorch_counts(shape: ModelShape, sequences: int) -> None:
    model = Llama(shape)
    model.initialise(0)
    x_BT = torch.zeros(sequences, shape.context, dtype=torch.int64)
    # As plain products: PyTorch has no formula for the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        model(x_BT)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as training:
        model.loss(x_BT, x_BT).backward()
    assert forward.get_total_flops() == inference_flops_per_token(shape) * x_BT.numel()
    assert training.get_total_flops() == training_flops_per_token(shape) * x_BT.numel()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_no_position_sees_what_follows_it(kv_heads: int) -> None:
    shape = ModelShape(layers=2, width=32, heads=4, kv_heads=kv_heads, ffn_width=64, vocabulary=50, context=12)
    model = Llama(shape)
    model.initialise(3)
    x_BT = torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(0))
    changed_BT = x_BT.clone()
    changed_BT[:, 7:] = (changed_BT[:, 7:] + 1) % 50
    torch.testing.assert_close(model(x_BT)[:, :7], model(changed_BT)[:, :7])
    assert not torch.allclose(model(x_BT)[:, 7:], model(changed_BT)[:, 7:])


def test_grouped_queries_equal_repeated_keys_and_values() -> None:
    shape = ModelShape(layers=1, width=32, heads=4, kv_heads=2, ffn_width=64, vocabulary=50, context=12)
    grouped = Llama(shape)
    grouped.initialise(0)
    full = Llama(shape.model_copy(update={"kv_heads": 4}))
    state = grouped.state_dict()
    q_rows, k_rows, v_rows = state["layers.0.self_attn.qkv_proj.weight"].split([32, 16, 16])
    repeated = [rows.view(2, 8, 32).repeat_interleave(2, dim=0).flatten(0, 1) for rows in (k_rows, v_rows)]
    full.load_state_dict(state | {"layers.0.self_attn.qkv_proj.weight": torch.cat([q_rows, *repeated])})
    x_BT = torch.arange(12)[None]
    torch.testing.assert_close(grouped(x_BT), full(x_BT))


def test_rotation_makes_scores_depend_on_distance_alone() -> None:
    cos_TE, sin_TE = rotary_tables(64, 16)
    q_E, k_E = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    q_TE, k_TE = (rotate(x_E.expand(64, 16), cos_TE, sin_TE) for x_E in (q_E, k_E))
    scores_TT = q_TE @ k_TE.T
    for distance in (0, 1, 5, 40):
        diagonal = scores_TT.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores_TT[0, 0], q_E @ k_E)


@given(st.integers(1, 300), st.integers(2, 40), st.integers(2, 5000))
@settings(deadline=None, max_examples=25)
def test_fused_head_equals_plain_cross_entropy(tokens: int, width: int, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    h_ND = torch.randn(tokens, width, generator=generator, requires_grad=True)
    w_VD = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    y_N = torch.randint(vocabulary, (tokens,), generator=generator)
    plain = F.cross_entropy(h_ND @ w_VD.T, y_N)
    fused = linear_cross_entropy(h_ND, w_VD, y_N)
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(3 * fused, [h_ND, w_VD]), torch.autograd.grad(3 * plain, [h_ND, w_VD]), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    each_N = F.cross_entropy(h_ND @ w_VD.T, y_N, reduction="none")
    torch.testing.assert_close(token_nats(h_ND, w_VD, y_N), each_N.detach(), atol=1e-4, rtol=1e-5)


def test_a_seed_fixes_the_weights_and_a_fresh_model_is_near_uniform() -> None:
    shape = ModelShape(layers=3, width=64, heads=4, kv_heads=4, ffn_width=176, vocabulary=1000, context=32)
    one, same, other = Llama(shape), Llama(shape), Llama(shape)
    for model, seed in ((one, 5), (same, 5), (other, 6)):
        model.initialise(seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.embed_tokens.weight, other.embed_tokens.weight)
    generator = torch.Generator().manual_seed(0)
    x_BT, y_BT = torch.randint(1000, (2, 16, 32), generator=generator)
    assert math.log(1000) < one.loss(x_BT, y_BT).item() < math.log(1000) + 1.0
