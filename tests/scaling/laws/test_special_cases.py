"""Laws within laws: where one becomes another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.laws.broken_power import BROKEN_POWER, BrokenPower
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.data_constrained import DATA_CONSTRAINED
from scaling.laws.effective_data import optimal_params_for
from scaling.laws.kaplan import KAPLAN
from scaling.laws.m4 import M4
from scaling.laws.over_trained import OVER_TRAINED
from scaling.laws.saturating_power import SATURATING_POWER
from scaling.laws.skaling import SKALING

HOFFMANN = np.array([406.4, 410.7, 1.69, 0.34, 0.28])
SIZES, TOKENS = np.geomspace(1e7, 1e11, 9), np.geomspace(1e13, 1e9, 9)
X = np.geomspace(1e2, 1e9, 12)
exponents = st.floats(0.1, 0.9)


@given(st.floats(10, 1e4), st.floats(10, 1e4), st.floats(0.5, 3), exponents, exponents)
def test_skaling_with_k_of_one_is_chinchilla(A: float, B: float, E: float, alpha: float, beta: float) -> None:
    skaling = [A, B / A, E, alpha, beta, 1.0]
    chinchilla = [A, B, E, alpha, beta]
    assert SKALING.predict(skaling, SIZES, TOKENS) == pytest.approx(CHINCHILLA.predict(chinchilla, SIZES, TOKENS))
    assert SKALING.optimum(skaling, 1e21) == pytest.approx(CHINCHILLA.optimum(chinchilla, 1e21))


def test_skaling_without_an_irreducible_loss_and_beta_of_one_is_kaplan() -> None:
    n_c, d_c, alpha_n, alpha_d = kaplan = [8.8e13, 5.4e13, 0.076, 0.095]
    ratio = alpha_n / alpha_d
    skaling = [n_c**alpha_n, d_c / n_c**ratio, 0.0, ratio, 1.0, alpha_d]
    assert SKALING.predict(skaling, SIZES, TOKENS) == pytest.approx(KAPLAN.predict(kaplan, SIZES, TOKENS))
    assert SKALING.optimum(skaling, 1e21) == pytest.approx(KAPLAN.optimum(kaplan, 1e21))


def test_kaplans_limits_are_power_laws_of_one_variable() -> None:
    theta = [8.8e13, 5.4e13, 0.076, 0.095]
    assert KAPLAN.predict(theta, SIZES, 1e40) == pytest.approx((8.8e13 / SIZES) ** 0.076)
    assert KAPLAN.predict(theta, 1e40, TOKENS) == pytest.approx((5.4e13 / TOKENS) ** 0.095)


def test_kaplans_tokens_for_two_per_cent_of_overfitting() -> None:
    """2001.08361, equation 4.4: D ≳ 5e3·N^0.74, from the constants of its table 2; with these it is 2.1%."""
    theta = [6.4e13, 1.8e13, 0.076, 0.103]
    enough = 5e3 * SIZES**0.74
    overfit = KAPLAN.predict(theta, SIZES, enough) / KAPLAN.predict(theta, SIZES, 1e40) - 1
    assert overfit == pytest.approx(0.021, abs=0.0003)


def test_kaplans_optimum_grows_with_the_exponents_of_the_paper() -> None:
    """α_D/(α_N+α_D) = 0.556 along C = 6·N·D; the paper's 0.73 is for runs that stop long before convergence."""
    assert [float(exponent) for exponent in KAPLAN.exponents([8.8e13, 5.4e13, 0.076, 0.095])] == pytest.approx(
        [0.5556, 0.4444], abs=1e-4
    )


def test_over_trained_is_chinchilla_with_one_exponent_and_root_six_in_its_tokens() -> None:
    alpha, beta, b, E = over_trained = [166.211, 366.687, -0.272851, 1.836648]
    chinchilla = [alpha, beta * 6 ** (b / 2), E, -b, -b]
    at_these = CHINCHILLA.predict(chinchilla, SIZES, TOKENS)
    assert OVER_TRAINED.predict(over_trained, SIZES, TOKENS) == pytest.approx(at_these)
    assert OVER_TRAINED.optimum(over_trained, 1e21) == pytest.approx(CHINCHILLA.optimum(chinchilla, 1e21))
    assert OVER_TRAINED.loss_at(over_trained, 6 * SIZES * TOKENS, TOKENS / SIZES) == pytest.approx(at_these)


def test_over_training_by_one_ratio_is_one_slope_in_compute() -> None:
    """At M and at 1/M·(a/β) the lines coincide, and E aside every line falls with slope b/2."""
    theta = np.array([166.211, 366.687, -0.272851, 1.836648])
    flops = np.geomspace(1e18, 1e24, 7)
    for ratio in (5.0, 20.0, 640.0):
        reducible = np.log(OVER_TRAINED.loss_at(theta, flops, ratio) - theta[3])
        assert np.diff(reducible) / np.log(10) == pytest.approx(theta[2] / 2)
    draws = OVER_TRAINED.loss_at(np.stack([theta, theta * 1.01]), flops, 20.0)
    assert draws.shape == (2, 7)


@given(st.floats(1e8, 1e13), st.floats(0.01, 1.0), st.floats(1.0, 100.0))
def test_without_repetition_or_excess_parameters_the_data_constrained_law_is_chinchilla(
    tokens: float, small: float, spare: float
) -> None:
    params = small * float(optimal_params_for(HOFFMANN, tokens))
    found = DATA_CONSTRAINED.predict([*HOFFMANN, 15.4, 5.3], params, tokens, tokens * spare)
    assert found == pytest.approx(CHINCHILLA.predict(HOFFMANN, params, tokens))


def test_where_repeats_and_excess_parameters_are_worth_what_fresh_ones_are_it_is_chinchilla() -> None:
    found = DATA_CONSTRAINED.predict([*HOFFMANN, 1e12, 1e12], SIZES, TOKENS, TOKENS / 30)
    assert found == pytest.approx(CHINCHILLA.predict(HOFFMANN, SIZES, TOKENS), rel=1e-6)


def test_repeats_help_less_than_fresh_tokens_and_never_hurt() -> None:
    theta = [*HOFFMANN, 15.4, 5.3]
    epochs = np.array([1, 2, 4, 16, 64, 1024])
    repeated = DATA_CONSTRAINED.predict(theta, 1e9, 1e10 * epochs, 1e10)
    assert (np.diff(repeated) <= 0).all()
    assert (repeated >= DATA_CONSTRAINED.predict(theta, 1e9, 1e10 * epochs, 1e13) - 1e-12).all()


def test_m4_with_a_near_zero_is_the_saturating_power_law() -> None:
    E, A, alpha = 1.5, 40.0, 0.3
    assert M4.predict([E, 1e3, 1e-9, A, -alpha], X) == pytest.approx(
        SATURATING_POWER.predict([E, A, alpha], X), rel=1e-6
    )


@given(st.floats(0.01, 5), st.floats(0.05, 8), st.floats(-2, -0.05), st.floats(-20, 20))
def test_m4_solves_its_equation_from_chance_to_the_limit(gap: float, a: float, c: float, ln_b: float) -> None:
    """Checked in the logarithm, where L is told from both of its limits."""
    E, E0 = 1.5, 1.5 + gap
    loss = M4.predict([E, E0, a, np.exp(ln_b), c], X)
    rounding = 1e-14 * E0  # E and E0 go through their logarithms
    assert (loss >= E - rounding).all() and (loss <= E0 + rounding).all() and (np.diff(loss) <= rounding).all()
    inside = (loss - E > 1e-6 * gap) & (E0 - loss > 1e-6 * gap)
    left = np.log(loss[inside] - E) - a * np.log(E0 - loss[inside])
    assert left == pytest.approx(ln_b + c * np.log(X[inside]), abs=1e-5 * (1 + a))


def test_a_broken_power_law_has_a_slope_before_and_another_after_its_break() -> None:
    theta = [1e-30, 5.0, 0.1, 0.4, 1e6, 0.2]
    before, after = (np.log(BROKEN_POWER.predict(theta, np.array([x, 10 * x]))) for x in (1e1, 1e11))
    assert np.diff(before)[0] / np.log(10) == pytest.approx(-0.1, abs=1e-3)
    assert np.diff(after)[0] / np.log(10) == pytest.approx(-0.5, abs=1e-3)


def test_a_break_that_changes_no_slope_is_none() -> None:
    saturating = SATURATING_POWER.predict([0.5, 5.0, 0.1], X)
    assert BROKEN_POWER.predict([0.5, 5.0, 0.1, 0.0, 1e6, 0.2], X) == pytest.approx(saturating)
    assert BrokenPower(2).predict([0.5, 5.0, 0.1, 0.3, 1e6, 0.2, -0.3, 1e6, 0.2], X) == pytest.approx(saturating)
    with pytest.raises(ValueError, match="breaks is 0"):
        BrokenPower(0)
