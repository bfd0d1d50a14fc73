"""What is the Llama decoder's own: grouped queries and rotary positions; and the fused head against the plain one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.shape import ModelShape
from trainer.models.linear_cross_entropy import linear_cross_entropy, token_nats
from trainer.models.llama import Llama, rotary_tables, rotate


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
@settings(max_examples=25)
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
