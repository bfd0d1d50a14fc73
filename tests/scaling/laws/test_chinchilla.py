from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import Law

HOFFMANN = np.array([np.exp(6.0073404), np.exp(6.0179186), np.exp(0.5267228), 0.33917084, 0.2849083])
BESIROGLU = np.array([482.00572, 2085.43420, 1.81686, 0.34781, 0.36585])
ROUNDED = np.array([406.4, 410.7, 1.69, 0.34, 0.28])


def test_chinchilla_is_a_law() -> None:
    law: Law = CHINCHILLA
    assert law.NAMES == ("A", "B", "E", "alpha", "beta")


@pytest.mark.parametrize(("theta", "ratio"), [(ROUNDED, 92.6), (HOFFMANN, 58.9), (BESIROGLU, 18.4)])
def test_optimal_tokens_a_parameter_at_chinchillas_budget(theta: np.ndarray, ratio: float) -> None:
    """The same budget under three printings of the constants: 92.6, 58.9 and 18.4 tokens a parameter."""
    params, tokens = CHINCHILLA.optimum(theta, 5.76e23)
    assert tokens / params == pytest.approx(ratio, abs=0.6)
    assert 6 * params * tokens == pytest.approx(5.76e23)


laws = st.tuples(
    st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0.3, 4), st.floats(0.05, 1.2), st.floats(0.05, 1.2)
).map(np.array)


@given(laws, st.floats(11, 26), st.floats(-0.5, 0.5))
def test_no_other_size_at_the_budget_does_better_than_the_optimum(theta: np.ndarray, log_c: float, off: float) -> None:
    params, tokens = CHINCHILLA.optimum(theta, 10**log_c)
    best = CHINCHILLA.predict(theta, params, tokens)
    assert CHINCHILLA.predict(theta, params * np.exp(off), tokens * np.exp(-off)) >= best * (1 - 1e-12)


@given(laws, st.floats(11, 24))
def test_the_exponents_are_the_slopes_of_the_optimum(theta: np.ndarray, log_c: float) -> None:
    low, high = (CHINCHILLA.optimum(theta, c) for c in (10**log_c, 10 ** (log_c + 1)))
    for exponent, at_low, at_high in zip(CHINCHILLA.exponents(theta), low, high, strict=True):
        assert np.log10(at_high / at_low) == pytest.approx(float(exponent), abs=1e-9)


@given(laws, st.integers(0, 2**32 - 1))
def test_the_gradient_is_the_difference_quotient(theta: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-3, 3, size=(2, 7))
    logs = np.concatenate((np.log(theta[:3]), theta[3:]))
    inputs = np.stack([x, y])
    value, gradient = CHINCHILLA.response_and_gradient(logs, inputs)
    steps = 1e-6 * np.eye(5)
    above, _ = CHINCHILLA.response_and_gradient(logs + steps, inputs)
    below, _ = CHINCHILLA.response_and_gradient(logs - steps, inputs)
    assert np.allclose(gradient, ((above - below) / 2e-6).T, atol=1e-7)
    assert np.allclose(np.exp(value), CHINCHILLA.predict(theta, np.exp(x), np.exp(y)))


def test_draws_are_predicted_together() -> None:
    draws = np.stack([HOFFMANN, BESIROGLU])
    params, tokens = np.array([1e9, 7e10, 1e11]), np.array([2e10, 1.4e12, 1e12])
    together = CHINCHILLA.predict(draws, params, tokens)
    assert together.shape == (2, 3)
    assert together[1, 2] == pytest.approx(float(CHINCHILLA.predict(BESIROGLU, params[2], tokens[2])))
    assert CHINCHILLA.optimum(draws, np.array([1e20, 1e21, 1e22]))[0].shape == (2, 3)
