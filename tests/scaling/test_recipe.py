from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.architectures import llama
from scaling.batch_rule import BatchRule
from scaling.hyperparameters import LearningRateLaw
from scaling.recipe import Recipe, recipe_from_literature, recipe_from_study
from scaling.record import Interval
from scaling.shape import ParameterCounts

LAW = LearningRateLaw(
    rate_at=Interval(estimate=8e-3, low=6e-3, high=1e-2),
    params_at=6e4,
    exponent=Interval(estimate=0.3, low=0.2, high=0.4),
    basis="probed at 30k and 120k parameters",
)


def _counts(total: float) -> ParameterCounts:
    return llama.count_parameters(llama.shape_for(total, vocabulary=1024, context=128))


def _recipe(kind: str, total: float, tokens: float, context: int, exponent: float = 0.383) -> Recipe:
    if kind == "literature":
        return recipe_from_literature(_counts(total), tokens, context)
    batch = BatchRule(batch_tokens=512, at_tokens=2_000_000, exponent=exponent)
    return recipe_from_study(LAW, batch, _counts(total), tokens, context)


@given(
    kind=st.sampled_from(["study", "literature"]),
    total=st.floats(min_value=3e4, max_value=1e12),
    tokens=st.floats(min_value=1e5, max_value=1e14),
    context=st.sampled_from([128, 2048, 8192]),
)
def test_a_recipe_is_whole_batches_that_do_not_exceed_the_tokens(
    kind: str, total: float, tokens: float, context: int
) -> None:
    recipe = _recipe(kind, total, tokens, context)
    assert recipe.global_batch_tokens % context == 0
    assert recipe.warmup_steps + recipe.cooldown_steps <= recipe.steps
    assert recipe.warmup_steps == min(recipe.steps // 10, 2000)
    assert recipe.tokens <= tokens * 1.001 or recipe.steps == 1
    assert recipe.tokens > tokens - 1.001 * recipe.global_batch_tokens
    low, high = recipe.learning_rate.low, recipe.learning_rate.high
    assert low is not None and high is not None
    assert low < recipe.learning_rate.estimate < high


def test_a_studys_batch_grows_by_power_lines() -> None:
    """Bergsma et al. 2505.13738: B ~ D^0.383; nanochat's step from 12 to 24 layers is 2^0.383 = 1.3 a doubling."""
    at_anchor = _recipe("study", 1e9, 2_000_000, 128).global_batch_tokens
    doubled = _recipe("study", 1e9, 2e6 * 2**20, 128).global_batch_tokens
    assert at_anchor == 512
    assert doubled == pytest.approx(512 * 2 ** (0.383 * 20), rel=1 / 8)
    assert doubled // 128 % 2**7 == 0, "a number of sequences that many processes share evenly"


def test_a_batch_that_was_one_for_all_runs_is_carried_by_power_lines_and_one_that_grew_by_its_own_exponent() -> None:
    fixed, grown = (_recipe("study", 1e9, 2e6 * 2**20, 128, exponent) for exponent in (0.0, 0.5))
    assert fixed.global_batch_tokens == _recipe("study", 1e9, 2e6 * 2**20, 128).global_batch_tokens
    assert "as in the sweep" not in fixed.basis
    assert grown.global_batch_tokens == pytest.approx(512 * 2**10, rel=1 / 8)
    assert "grown by D^0.5, as in the sweep" in grown.basis


def test_a_studys_rate_follows_its_own_law_and_says_how_far_it_was_carried() -> None:
    counts = _counts(5e8)
    recipe = _recipe("study", 5e8, 1e10, 128)
    assert recipe.learning_rate.estimate == pytest.approx(8e-3 * (counts.total / 6e4) ** -0.3)
    assert "carried from 60k to" in recipe.basis
    assert "Step Law says" in recipe.basis
    assert "Step Law says" not in _recipe("study", 1e6, 1e7, 128).basis


def test_inside_a_published_range_the_law_is_cited_and_outside_nothing_is_pretended() -> None:
    inside = _recipe("literature", 5e8, 1e10, 2048)
    assert "2503.04715" in inside.basis and "inside its fitted range" in inside.basis
    outside = _recipe("literature", 7e10, 2e12, 8192)
    assert "no published law was fitted here" in outside.basis and "probe" in outside.basis
    assert inside.learning_rate.high is not None and outside.learning_rate.high is not None
    spread_inside = inside.learning_rate.high / inside.learning_rate.estimate
    assert outside.learning_rate.high / outside.learning_rate.estimate > 1.5 * spread_inside


def test_llama_2s_70b_rate_and_batch_lie_where_the_literature_recipe_expects_them() -> None:
    """Llama 2 (2307.09288, section 2.2): 70B, 2T tokens, peak 1.5e-4, batch 4M tokens."""
    recipe = _recipe("literature", 7e10, 2e12, 4096)
    assert recipe.learning_rate.low is not None and recipe.learning_rate.high is not None
    assert recipe.learning_rate.low < 1.5e-4 < recipe.learning_rate.high
    assert 2e6 < recipe.global_batch_tokens < 8e6
