from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.architectures import llama
from scaling.errors import UserError
from scaling.serving import decode_flops, forward_flops, kv_cache_bytes, prefill_flops, request_flops
from scaling.shape import ModelShape
from scaling.shape_account import account

LLAMA_3_70B = ModelShape(
    layers=80, width=8192, heads=64, kv_heads=8, ffn_width=28672, vocabulary=128_256, context=8192, tied=False
)
SMALL = ModelShape(layers=3, width=64, heads=4, kv_heads=2, ffn_width=160, vocabulary=512, context=256)


def test_llama_3_70b_is_counted_to_the_parameter() -> None:
    assert llama.count_parameters(LLAMA_3_70B).total == 70_553_706_496


def test_every_part_is_counted_and_matrices_cost_two_flops_a_parameter() -> None:
    counts, forward = llama.count_parameters(SMALL), forward_flops(SMALL, SMALL.context)
    norms = (2 * SMALL.layers + 1) * SMALL.width
    assert forward.total - forward.scores == 2 * (counts.with_head - norms)
    assert forward.total == llama.inference_flops_per_token(SMALL)
    assert 3 * forward.total == llama.training_flops_per_token(SMALL)
    assert forward.head == 2 * SMALL.vocabulary * SMALL.width


@given(st.integers(1, 200))
def test_a_prompt_costs_what_its_tokens_would_one_by_one_less_the_heads_that_nobody_reads(tokens: int) -> None:
    one_by_one = sum(decode_flops(SMALL, position) for position in range(1, tokens + 1))
    assert prefill_flops(SMALL, tokens) == one_by_one - (tokens - 1) * forward_flops(SMALL, 1).head


@given(st.integers(1, 100), st.integers(1, 100))
def test_a_request_is_its_prompt_and_then_one_token_at_a_time(prompt: int, completion: int) -> None:
    written = sum(decode_flops(SMALL, prompt + i) for i in range(1, completion))
    assert request_flops(SMALL, prompt, completion) == prefill_flops(SMALL, prompt) + written


def test_two_n_a_token_is_a_little_low_for_short_requests_and_far_low_for_long_ones() -> None:
    two_n = 2 * llama.count_parameters(LLAMA_3_70B).total
    assert decode_flops(LLAMA_3_70B, 128) / two_n == pytest.approx(1.0, abs=0.03)
    long = LLAMA_3_70B.model_copy(update={"context": 131_072})
    assert decode_flops(long, 131_072) / two_n > 3


def test_grouped_queries_save_projections_and_cache_and_no_scores() -> None:
    full = LLAMA_3_70B.model_copy(update={"kv_heads": 64})
    grouped, plain = forward_flops(LLAMA_3_70B, 4096), forward_flops(full, 4096)
    assert grouped.scores == plain.scores
    assert grouped.projections < plain.projections
    assert kv_cache_bytes(full, 1000) == 8 * kv_cache_bytes(LLAMA_3_70B, 1000)
    # 80 layers x 8 heads x 128 x 2 (keys and values) x 2 bytes
    assert kv_cache_bytes(LLAMA_3_70B, 1) == 327_680


def test_positions_outside_the_context_are_refused() -> None:
    with pytest.raises(UserError, match="1 to 256"):
        decode_flops(SMALL, 257)
    with pytest.raises(UserError, match="prompt is 0"):
        prefill_flops(SMALL, 0)
    with pytest.raises(UserError, match="prompt and completion is 260"):
        request_flops(SMALL, 200, 60)


def test_the_books_of_a_shape_put_six_n_beside_the_exact_cost() -> None:
    books = account(LLAMA_3_70B)
    counts = llama.count_parameters(LLAMA_3_70B)
    assert books.total == books.active == counts
    assert books.sparsity == 0
    assert books.six_n == {
        "total": 6 * counts.total, "nonembedding": 6 * counts.nonembedding, "with-head": 6 * counts.with_head,
    }  # fmt: skip
    assert books.exact_over_six_n["total"] == pytest.approx(1.137, abs=0.001)
    assert "scores 13.4%" in books.summary()
