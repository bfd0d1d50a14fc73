from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.effective_data import (
    effective_params,
    effective_tokens,
    optimal_params_for,
    worth_of_a_repeat,
)

uniques = st.floats(1e3, 1e13)
epochs = st.floats(0.01, 1e3)
decays = st.floats(0.1, 1e3)


@given(uniques, epochs, decays)
def test_repeats_are_worth_less_than_fresh_tokens_and_never_more_than_r_star_epochs(
    unique: float, passes: float, r_d: float
) -> None:
    worth = float(effective_tokens(unique * passes, unique, r_d))
    assert worth <= unique * passes * (1 + 1e-12)
    assert worth <= unique * (1 + r_d) * (1 + 1e-12)
    if passes <= 1:
        assert worth == unique * passes


@given(uniques, st.floats(1.01, 50), decays)
def test_the_worth_of_a_repeat_is_the_slope(unique: float, passes: float, r_d: float) -> None:
    tokens, step = unique * passes, unique * 1e-5
    slope = float(effective_tokens(tokens + step, unique, r_d) - effective_tokens(tokens - step, unique, r_d))
    assert slope / (2 * step) == pytest.approx(float(worth_of_a_repeat(tokens, unique, r_d)), rel=1e-3, abs=1e-8)


def test_at_r_star_repetitions_63_percent_of_what_repeats_can_give_is_had() -> None:
    r_d = 15.387756
    gained = float(effective_tokens(1e9 * (1 + r_d), 1e9, r_d)) - 1e9
    assert gained == pytest.approx((1 - np.exp(-1)) * r_d * 1e9)


@given(uniques, epochs)
def test_an_infinite_r_star_costs_nothing(unique: float, passes: float) -> None:
    assert float(effective_tokens(unique * passes, unique, np.inf)) == pytest.approx(unique * passes)
    assert float(effective_params(unique * passes, unique, np.inf)) == pytest.approx(unique * passes)


@given(st.floats(1e15, 1e26))
def test_the_size_that_tokens_call_for_is_that_of_the_compute_that_would_buy_them(flops: float) -> None:
    theta = np.array([[482.01, 2085.43, 1.81686, 0.34781, 0.36585], [406.4, 410.7, 1.69, 0.34, 0.28]])
    params, tokens = CHINCHILLA.optimum(theta, flops)
    found = np.array(
        [float(optimal_params_for(row, row_tokens)) for row, row_tokens in zip(theta, tokens, strict=True)]
    )
    assert found == pytest.approx(params)


def test_draws_keep_their_axes() -> None:
    draws = np.tile([482.01, 2085.43, 1.81686, 0.34781, 0.36585], (7, 1))
    assert optimal_params_for(draws, np.array([1e9, 1e10])).shape == (7, 2)
    assert optimal_params_for(draws, 1e9).shape == (7,)
    assert effective_tokens(np.ones((3, 1)), np.ones(4), 15.0).shape == (3, 4)
