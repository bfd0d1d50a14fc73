"""What every registered law owes: its formula, its gradient, its units, its starts, its optimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling import laws
from scaling.fits.estimate import estimate
from scaling.laws.effective_data import effective_params, effective_tokens, optimal_params_for
from scaling.laws.law import Law, LossLaw
from scaling.laws.residual_scale import on_value
from scaling.laws.schedule import ScheduleLaw


@dataclass(frozen=True)
class Case:
    """A law with constants near published or typical ones, the ranges of its inputs, and its formula once more."""

    theta: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...]
    formula: Callable[..., object]


def data_constrained(theta: np.ndarray, n: np.ndarray, d: np.ndarray, u: np.ndarray) -> np.ndarray:
    A, B, E, alpha, beta, r_d, r_n = theta
    unique = np.minimum(u, d)
    n_worth = effective_params(n, optimal_params_for(theta[:5], unique), r_n)
    return E + A * n_worth**-alpha + B * effective_tokens(d, unique, r_d) ** -beta


def broken(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    a, b, c0, *bends = theta
    y = b * x**-c0
    for c, d, f in zip(bends[::3], bends[1::3], bends[2::3], strict=True):
        y = y * (1 + (x / d) ** (1 / f)) ** (-c * f)
    return a + y


def learning_curve(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """By bisection."""
    e, e0, a, b, c = theta
    low, high = np.full_like(x, e), np.full_like(x, e0)
    for _ in range(200):
        middle = 0.5 * (low + high)
        too_low = (middle - e) / (e0 - middle) ** a < b * x**c
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return 0.5 * (low + high)


def power(theta: np.ndarray, *sizes: np.ndarray) -> np.ndarray:
    return theta[0] * np.prod([x**e for x, e in zip(sizes, theta[1:], strict=True)], axis=0)


SIZES, TOKENS, X = (1e7, 1e10), (1e9, 1e12), (1e3, 1e8)
NATS = (0.05, 200.0)
BENDS = (0.5, 1e5, 0.4, -0.3, 2e6, 0.2, 0.4, 1e7, 0.1)
CASES = {
    "accuracy-sigmoid": Case(
        (-0.74, 0.75, 6.0, 0.85), ((0.5, 2.0),), lambda t, x: t[0] / (1 + np.exp(-t[2] * (x - t[1]))) + t[3]
    ),
    "broken-power": Case((0.4, 4.0, 0.05, *BENDS[:3]), (X,), broken),
    "broken-power-2": Case((0.4, 4.0, 0.05, *BENDS[:6]), (X,), broken),
    "broken-power-3": Case((0.1, 4.0, 0.05, *BENDS), (X,), broken),
    "chinchilla": Case(
        (482.0, 2085.0, 1.82, 0.348, 0.366),
        (SIZES, TOKENS),
        lambda t, n, d: t[2] + t[0] * n ** -t[3] + t[1] * d ** -t[4],
    ),
    "data-constrained": Case(
        (521.0, 1488.0, 1.87, 0.353, 0.353, 15.4, 5.3), (SIZES, TOKENS, (1e9, 1e11)), data_constrained
    ),
    "deepseek": Case((0.3118, -0.125), ((1e17, 1e21),), power),
    "deepseek-batch": Case((0.292, 0.3271), ((1e17, 1e21),), power),
    "fine-tuning": Case(
        (30.0, 0.12, 0.08, 1.2), (SIZES, (1e4, 1e7)), lambda t, x, d: t[0] * x ** -t[1] * d ** -t[2] + t[3]
    ),
    "kaplan": Case(
        (8.8e13, 5.4e13, 0.076, 0.095),
        (SIZES, TOKENS),
        lambda t, n, d: ((t[0] / n) ** (t[2] / t[3]) + t[1] / d) ** t[3],
    ),
    "m4": Case((1.5, 7.0, 1.5, 20.0, -0.45), (X,), learning_curve),
    "olmo-ladder": Case((1.12, -0.333), (SIZES,), power),
    "olmo-ladder-batch": Case((1.44, 0.667), (SIZES,), power),
    "over-optimisation-best-of-n": Case(
        (0.3, 0.9, 0.15), (NATS,), lambda t, kl: t[0] + kl**0.5 * (t[1] - t[2] * kl**0.5)
    ),
    "over-optimisation-rl": Case(
        (0.3, 0.9, 0.4), (NATS,), lambda t, kl: t[0] + kl**0.5 * (t[1] - t[2] * np.log(kl**0.5))
    ),
    "over-trained": Case(
        (166.211, 366.687, -0.272851, 1.836648),
        (SIZES, TOKENS),
        lambda t, n, d: t[3] + t[0] * n ** t[2] + t[1] * (6**0.5 * d) ** t[2],
    ),
    "power-lines-batch": Case((40.0, 0.383), (TOKENS,), power),
    "power-lines-timescale": Case((1.0, -0.5), ((5.0, 500.0),), power),
    "saturating-power": Case((1.5, 40.0, 0.3), (X,), lambda t, x: t[0] + t[1] * x ** -t[2]),
    "skaling": Case(
        (1500.0, 0.9, 1.7, 0.7, 0.75, 0.5),
        (SIZES, TOKENS),
        lambda t, n, d: t[2] + t[0] * (n ** -t[3] + t[1] * d ** -t[4]) ** t[5],
    ),
    "step-law": Case((1.79, -0.713, 0.307), (SIZES, TOKENS), power),
    "step-law-batch": Case((0.58, 0.571), (TOKENS,), power),
    "top-1-error": Case((0.857, 2.2, 0.715), ((2.0, 6.0),), lambda t, loss: t[0] - t[1] * np.exp(-t[2] * loss)),
}
LAWS = sorted(CASES)
LOSS_LAWS = [name for name in LAWS if isinstance(laws.get(name), LossLaw)]
shifts = st.integers(0, 2**32 - 1)


def near(name: str, seed: int, points: int = 30) -> tuple[Law, np.ndarray, tuple[np.ndarray, ...]]:
    """The law, constants up to 10% from its case's, and inputs spread over the ranges."""
    case, rng = CASES[name], np.random.default_rng(seed)
    theta = np.array(case.theta) * rng.uniform(0.9, 1.1, len(case.theta))
    inputs = tuple(np.exp(rng.uniform(np.log(low), np.log(high), points)) for low, high in case.ranges)
    return laws.get(name), theta, inputs


def test_every_registered_law_is_tested_here() -> None:
    """But those of a whole schedule, which stand on points before they can be asked: ``test_schedule_laws.py``."""
    assert {name for name in laws.names() if not isinstance(laws.get(name), ScheduleLaw)} == set(CASES)
    for name in LAWS:
        law = laws.get(name)
        assert law.name == name
        assert len(CASES[name].theta) == len(law.parameters)
        assert len(CASES[name].ranges) == len(law.inputs)
        assert law.formula and law.citation


@pytest.mark.parametrize("name", LAWS)
@given(seed=shifts)
@settings(max_examples=20)
def test_predict_is_the_formula(name: str, seed: int) -> None:
    law, theta, inputs = near(name, seed)
    assert law.predict(theta, *inputs) == pytest.approx(CASES[name].formula(theta, *inputs), rel=1e-9)


def difference_quotient(law: Law, free: np.ndarray, ln_inputs: np.ndarray) -> np.ndarray:
    steps = 1e-6 * np.eye(len(free))
    above, below = (law.response_and_gradient(free + sign * steps, ln_inputs)[0] for sign in (1, -1))
    return (above - below).T / 2e-6


@pytest.mark.parametrize("name", LAWS)
@given(seed=shifts)
@settings(max_examples=20)
def test_the_gradient_is_the_difference_quotient(name: str, seed: int) -> None:
    """Near the case, and on either scale of residuals."""
    law, theta, inputs = near(name, seed, 7)
    ln_inputs, free = np.log(np.stack(inputs)), law.free_of(theta)
    for scaled in (law, on_value(law)):
        _, gradient = scaled.response_and_gradient(free, ln_inputs)
        assert gradient == pytest.approx(difference_quotient(scaled, free, ln_inputs), rel=1e-4, abs=2e-7)


@pytest.mark.parametrize("name", LAWS)
@given(seed=shifts)
@settings(max_examples=20)
def test_the_gradient_holds_all_over_the_box(name: str, seed: int) -> None:
    """No overflow wherever a fit may look."""
    law, theta, inputs = near(name, seed, 12)
    ln_inputs = np.log(np.stack(inputs))
    ln_inputs = ln_inputs - law.centre(ln_inputs)[:, None]
    box = law.box(ln_inputs, law.predict(theta, *inputs))
    rng = np.random.default_rng(seed)
    free = rng.uniform(box.low, box.high, size=(20, len(box.low)))
    response, gradient = law.response_and_gradient(free, ln_inputs)
    assert np.isfinite(response).all() and np.isfinite(gradient).all()
    assert response.shape == (20, 12) and gradient.shape == (20, 12, len(theta))


@pytest.mark.parametrize("name", [name for name in LAWS if type(laws.get(name)).curvature is not Law.curvature])
@given(seed=shifts)
@settings(max_examples=20)
def test_a_curvature_in_closed_form_is_that_by_differences(name: str, seed: int) -> None:
    law, theta, inputs = near(name, seed, 9)
    ln_inputs = np.log(np.stack(inputs))
    ln_inputs = ln_inputs - law.centre(ln_inputs)[:, None]
    free = law.free_of(np.stack([theta, theta * 1.05]))
    _, jacobian = law.response_and_gradient(free, ln_inputs)
    psi = np.random.default_rng(seed).standard_normal((2, 9))
    formula = law.curvature(free, ln_inputs, jacobian, psi)
    assert Law.curvature(law, free, ln_inputs, jacobian, psi) == pytest.approx(formula, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", LAWS)
@given(seed=shifts)
@settings(max_examples=20)
def test_dividing_inputs_by_a_unit_is_undone_by_the_constants(name: str, seed: int) -> None:
    law, theta, inputs = near(name, seed)
    ln_inputs, free = np.log(np.stack(inputs)), law.free_of(theta)
    centre = law.centre(ln_inputs)
    assert law.centres == bool(centre.any())
    centred, _ = law.response_and_gradient(free, ln_inputs - centre[:, None])
    moved, _ = law.response_and_gradient(law.uncentred(free, tuple(centre)), ln_inputs)
    assert moved == pytest.approx(centred, rel=1e-9, abs=1e-9)
    back = law.uncentred(law.uncentred(free, tuple(centre)), tuple(-centre))
    assert back == pytest.approx(free, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_noiseless_data_give_back_the_truth(name: str) -> None:
    law, theta, inputs = near(name, 0, 40)
    found = estimate(law, inputs, law.predict(theta, *inputs), 1e-3)
    assert found.theta == pytest.approx(theta, rel=1e-4)
    assert found.at_bound == ()


# More breaks are of the same class, and take seconds.
@pytest.mark.parametrize("name", LAWS)
@given(seed=shifts, decades=st.floats(0.02, 7), noise=st.floats(0, 0.3), points=st.integers(4, 40))
@settings(max_examples=20)
def test_starts_are_finite_whatever_the_data_span(
    name: str, seed: int, decades: float, noise: float, points: int
) -> None:
    """A fiftieth of a decade to seven, of the law or of nothing like it."""
    law, theta, inputs = near(name, seed, points)
    rng = np.random.default_rng(seed)
    span = 0.5 if name == "top-1-error" else decades
    inputs = tuple(np.median(array) * 10 ** (span * rng.uniform(-0.5, 0.5, points)) for array in inputs)
    value = law.predict(theta, *inputs)
    value = np.maximum(value, 0.01) * np.exp(noise * rng.standard_normal(points))
    ln_inputs = np.log(np.stack(inputs))
    ln_inputs = ln_inputs - law.centre(ln_inputs)[:, None]
    starts = law.starts(ln_inputs, value, 20)
    assert np.isfinite(starts).all() and 1 <= len(starts) <= 20
    box = law.box(ln_inputs, value)
    response, gradient = law.response_and_gradient(np.clip(starts, box.low, box.high), ln_inputs)
    assert np.isfinite(response).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", [name for name in LAWS if laws.get(name).centres and name[-2:] not in ("-2", "-3")])
def test_the_unit_of_the_inputs_changes_no_prediction(name: str) -> None:
    """Tokens in thousands: noisy data give the same fitted values."""
    law, theta, inputs = near(name, 5, 40)
    value = law.predict(theta, *inputs) * np.exp(0.002 * np.random.default_rng(5).standard_normal(40))
    found = estimate(law, inputs, value, 1e-3)
    in_thousands = estimate(law, tuple(array / 1e3 for array in inputs), value, 1e-3)
    assert in_thousands.objective == pytest.approx(found.objective, rel=1e-6)
    assert in_thousands.residuals == pytest.approx(found.residuals, abs=1e-6)


@pytest.mark.parametrize("name", LAWS)
def test_draws_and_shapes_are_kept(name: str) -> None:
    law, theta, inputs = near(name, 3, 6)
    draws = np.stack([theta, theta * 1.01])
    square = tuple(array.reshape(2, 3) for array in inputs)
    together = law.predict(draws, *square)
    assert together.shape == (2, 2, 3)
    assert together[1, 1, 2] == pytest.approx(float(law.predict(draws[1], *(array[5] for array in inputs))))


@pytest.mark.parametrize("name", LOSS_LAWS)
@given(seed=shifts, log_c=st.floats(16, 25), off=st.floats(-0.5, 0.5))
@settings(max_examples=20)
def test_no_other_size_at_the_budget_does_better_than_the_optimum(
    name: str, seed: int, log_c: float, off: float
) -> None:
    law, theta, _ = near(name, seed, 2)
    assert isinstance(law, LossLaw)
    params, tokens = law.optimum(theta, 10**log_c)
    assert 6 * params * tokens == pytest.approx(10**log_c)
    best = law.predict(theta, params, tokens)
    assert law.predict(theta, params * np.exp(off), tokens * np.exp(-off)) >= best * (1 - 1e-12)


@pytest.mark.parametrize("name", LOSS_LAWS)
@given(seed=shifts, log_c=st.floats(16, 24))
@settings(max_examples=20)
def test_the_exponents_are_the_slopes_of_the_optimum(name: str, seed: int, log_c: float) -> None:
    law, theta, _ = near(name, seed, 2)
    assert isinstance(law, LossLaw)
    low, high = (law.optimum(theta, c) for c in (10 ** (log_c - 0.5), 10 ** (log_c + 0.5)))
    for exponent, at_low, at_high in zip(law.exponents(theta, 10**log_c), low, high, strict=True):
        assert np.log10(at_high / at_low) == pytest.approx(float(exponent), abs=1e-6)
    draws = np.stack([theta, theta])
    assert law.optimum(draws, np.array([1e20, 1e21, 1e22]))[0].shape == (2, 3)
    assert law.exponents(draws, 1e21)[0].shape == (2,)


@pytest.mark.parametrize("name", LOSS_LAWS)
def test_a_closed_optimum_is_the_one_that_a_search_finds(name: str) -> None:
    law, theta, _ = near(name, 7, 2)
    assert isinstance(law, LossLaw)
    searched, closed = LossLaw.optimum(law, theta, 1e21), law.optimum(theta, 1e21)
    assert searched[0] == pytest.approx(closed[0], rel=2e-3)
