"""Laws of a whole schedule: their formulas summed by hand, gradients, limits and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling import laws
from scaling.errors import UserError
from scaling.laws.multi_power import MULTI_POWER, MultiPower
from scaling.laws.schedule import ScheduleLaw, SchedulePoints
from scaling.laws.tissue import TISSUE

MPL_25M = np.array([3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257])
"""L0, A, alpha, B, C, beta, gamma of the 25M model, as Luo et al. publish them with their code."""
TISSUE_THETA = np.array([3.04, 0.52, 0.51, 1.64, 0.9957])
LAWS = [(MultiPower(resolution=1), MPL_25M), (TISSUE, TISSUE_THETA)]

peaks = st.floats(1e-5, 1e-2)


def cosine(steps: int, peak: float, end: float, warmup: int = 50) -> np.ndarray:
    x = np.arange(steps - warmup) / (steps - warmup)
    return np.concatenate((np.linspace(0, peak, warmup), end + 0.5 * (peak - end) * (1 + np.cos(np.pi * x))))


def by_hand_multi_power(theta: np.ndarray, lr: np.ndarray, step: int) -> float:
    l0, a, alpha, b, c, beta, gamma = theta
    drop = 0.0
    for k in range(1, step + 1):
        area = lr[k : step + 1].sum()
        drop += (lr[k - 1] - lr[k]) * (1 - (1 + c * lr[k] ** -gamma * area) ** -beta)
    return float(l0 + a * lr[: step + 1].sum() ** -alpha - b * drop)


def by_hand_tissue(theta: np.ndarray, lr: np.ndarray, step: int) -> float:
    l0, a, alpha, c, memory = theta
    momentum, annealed = 0.0, 0.0
    for i in range(1, step + 1):
        momentum = memory * momentum + lr[i - 1] - lr[i]
        annealed += momentum
    return float(l0 + a * lr[: step + 1].sum() ** -alpha - c * annealed)


@given(peaks, st.floats(0.01, 1.0), st.integers(60, 300))
def test_the_laws_are_their_sums_written_out(peak: float, end: float, last: int) -> None:
    lr = cosine(400, peak, end * peak)
    at = np.array([55, last])
    exact = MultiPower(resolution=1).predict_curve(MPL_25M, lr, at)
    assert exact == pytest.approx([by_hand_multi_power(MPL_25M, lr, s) for s in at], rel=1e-9)
    assert TISSUE.predict_curve(TISSUE_THETA, lr, at) == pytest.approx(
        [by_hand_tissue(TISSUE_THETA, lr, s) for s in at], rel=1e-9
    )


@pytest.mark.parametrize(("law", "theta"), LAWS, ids=lambda value: getattr(value, "name", ""))
@given(seed=st.integers(0, 2**32 - 1))
def test_the_gradient_is_the_difference_quotient(law: ScheduleLaw, theta: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    here = law.on(
        SchedulePoints(cosine(300, 3e-4, 3e-5), np.array([60, 150, 299])),
        SchedulePoints(cosine(200, 1e-3, 1e-5), np.array([70, 199])),
    )
    free = here.free_of(theta) + 0.3 * rng.uniform(-1, 1, len(theta))
    asked = np.zeros((1, 5))
    _, gradient = here.response_and_gradient(free, asked)
    steps = 1e-6 * np.eye(len(theta))
    above, _ = here.response_and_gradient(free + steps, asked)
    below, _ = here.response_and_gradient(free - steps, asked)
    assert np.allclose(gradient, ((above - below) / 2e-6).T, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("law", "theta"), LAWS, ids=lambda value: getattr(value, "name", ""))
def test_the_gradient_along_a_curve_is_in_the_citations_units(law: ScheduleLaw, theta: np.ndarray) -> None:
    lr, at = cosine(400, 3e-4, 3e-5), np.arange(100, 400, 7)
    gradient = law.curve_gradient(theta, lr, at)
    free, step = law.free_of(theta), 1e-6 * np.eye(len(theta))
    above, below = (np.log(law.predict_curve(law.theta_of(free + sign * step), lr, at)) for sign in (1, -1))
    assert np.allclose(gradient, ((above - below) / 2e-6).T, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("law", "theta"), LAWS, ids=lambda value: getattr(value, "name", ""))
def test_searched_coordinates_and_constants_are_each_others_inverse(law: ScheduleLaw, theta: np.ndarray) -> None:
    here = law.on(SchedulePoints(cosine(300, 3e-4, 3e-5), np.array([60, 150, 299])))
    draws = theta * np.array([[1.0], [0.97]])
    for known in (law, here):
        assert known.theta_of(known.free_of(draws)) == pytest.approx(draws, rel=1e-12)


@given(peaks)
def test_without_a_fall_both_laws_are_the_power_of_the_area(peak: float) -> None:
    lr, at = np.full(300, peak), np.array([0, 10, 299])
    area = peak * (at + 1.0)
    assert MULTI_POWER.predict_curve(MPL_25M, lr, at) == pytest.approx(3.04045406 + 0.52468604 * area**-0.50786857)
    assert TISSUE.predict_curve(TISSUE_THETA, lr, at) == pytest.approx(3.04 + 0.52 * area**-0.51)


@given(st.floats(1e-5, 5e-4), st.floats(0.0, 0.9))
def test_a_fall_lowers_the_loss_below_the_constant_rates_in_time(peak: float, end: float) -> None:
    """At the same area under the rate: what is left is what the fall itself was worth, and it grows with time."""
    lr = np.concatenate((np.full(1000, peak), np.full(4000, max(end, 0.05) * peak)))
    at = np.array([1100, 2000, 4999])
    area = np.cumsum(lr)[at]
    for law, theta in LAWS:
        worth = theta[0] + theta[1] * area ** -theta[2] - law.predict_curve(theta, lr, at)
        assert (worth > 0).all() and (np.diff(worth) > -1e-12).all() and worth[-1] > worth[0]


def test_a_rate_that_falls_to_zero_has_spent_its_drop() -> None:
    lr = np.concatenate((np.full(1000, 3e-4), np.linspace(3e-4, 0, 200)))
    loss = MULTI_POWER.predict_curve(MPL_25M, lr, [999, 1100, 1199])
    assert np.isfinite(loss).all() and (np.diff(loss) < 0).all()


def test_steps_taken_together_change_little() -> None:
    """24,000 steps of a cosine with warm-up, 64 steps at a time: 1e-4 nats at most."""
    lr, at = cosine(24_000, 3e-4, 3e-5, warmup=2160), np.arange(2200, 24_000, 900)
    exact = MultiPower(resolution=1).predict_curve(MPL_25M, lr, at)
    assert MULTI_POWER.predict_curve(MPL_25M, lr, at) == pytest.approx(exact, abs=2e-4)


def test_many_points_are_asked_in_pieces_that_agree() -> None:
    lr = cosine(700, 3e-4, 3e-5)
    law, theta = LAWS[0]
    whole = law.predict_curve(theta, lr, np.arange(10, 700))
    assert whole[::100] == pytest.approx(law.predict_curve(theta, lr, np.arange(10, 700, 100)), rel=1e-12)
    assert law.predict_curve(np.stack([theta, theta]), lr, [100, 200]).shape == (2, 2)


@pytest.mark.parametrize(
    ("lr", "at", "says"),
    [
        (np.full(10, 1e-3), [3, 10], "steps 0 to 9"),
        (np.full(10, 1e-3), [5, 5], "ascending"),
        (np.full(10, 1e-3), [2.5], "whole numbers"),
        (np.full(10, 1e-3), [], "at least one"),
        (-np.full(10, 1e-3), [5], "none negative"),
        (np.full(10, np.nan), [5], "none negative"),
        (np.array([0.0, 0.0, 1e-3]), [1, 2], "before any learning rate"),
    ],
)
def test_what_is_no_schedule_is_a_clear_line(lr: np.ndarray, at: list[float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TISSUE.predict_curve(TISSUE_THETA, lr, np.array(at))


def test_a_law_that_stands_on_no_points_says_so() -> None:
    with pytest.raises(ValueError, match=r"0 points and was asked at 3: use on\(\)"):
        TISSUE.response_and_gradient(TISSUE.free_of(TISSUE_THETA), np.zeros((1, 3)))


def test_they_are_found_by_name_and_are_no_laws_of_size() -> None:
    assert laws.get("multi-power") is MULTI_POWER
    assert laws.get("tissue") is TISSUE
    with pytest.raises(UserError, match="law 'tissue', of steps, has no compute optimum"):
        laws.get_loss_law("tissue")
