"""Profiles are least objectives with a quantity held; their intervals hold the truth as often as stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scaling.fits.estimate import Estimate, draw, estimate
from scaling.fits.huber import sum_of_huber
from scaling.fits.influence import influence, target_beyond
from scaling.fits.linearised import linearise
from scaling.fits.profile import Profile, profile, profiles
from scaling.fits.quantities import Quantity, constant, log_loss_at, n_exponent
from scaling.laws import get_loss_law
from scaling.laws.chinchilla import CHINCHILLA
from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop

DELTA = 1e-3


class Study:
    """Runs of a known truth and their fit."""

    def __init__(self, seed: int, design: tuple[int, int] = (5, 7), noise: float = 0.004) -> None:
        rng = np.random.default_rng(seed)
        self.truth, flops = random_small_truth(rng)
        runs = simulate_isoflop(self.truth, IsoflopDesign(*design, flops), noise, rng)
        self.inputs = runs["params"].to_numpy(), runs["tokens"].to_numpy()
        self.loss = runs["loss"].to_numpy()
        self.found: Estimate = estimate(CHINCHILLA, self.inputs, self.loss, DELTA)
        top = 10 * float((6 * self.inputs[0] * self.inputs[1]).max())
        params, tokens = CHINCHILLA.optimum(self.found.theta, top)
        self.target = float(params), float(tokens)

    def profile(self, quantity: Quantity, **options: float) -> Profile:
        return profile(self.found, self.inputs, self.loss, DELTA, quantity, **options)

    def true_values(self) -> dict[str, float]:
        _, _, e, alpha, beta = self.truth
        loss = float(CHINCHILLA.predict(self.truth, *self.target))
        return {"alpha": alpha, "beta": beta, "E": e, "n_exponent": beta / (alpha + beta), "loss": loss}


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(1)


@pytest.mark.parametrize("name", ["alpha", "beta", "E"])
def test_the_profile_of_a_constant_is_the_fit_with_it_fixed(study: Study, name: str) -> None:
    """The same minima from forty starts with the constant fixed, at six values."""
    one = study.profile(constant(study.found, name))
    for at in range(0, len(one.values), 3):
        fixed = estimate(CHINCHILLA, study.inputs, study.loss, DELTA, fixed={name: float(one.values[at])})
        assert one.excess[at] == pytest.approx(fixed.objective - study.found.objective, abs=1e-3 * one.threshold)


@pytest.mark.parametrize("quantity", [n_exponent, lambda found: log_loss_at(found, *Study(1).target)])
def test_no_constants_with_a_derived_quantity_at_a_value_fit_better_than_its_profile(
    study: Study, quantity: object
) -> None:
    """Five hundred refits of other noise: whatever they say of the quantity, none lies below the profile there."""
    asked = quantity(study.found)  # type: ignore[operator]
    one = study.profile(asked)
    draws = draw(study.found, study.inputs, study.loss, DELTA, draws=500, rng=np.random.default_rng(0))
    free = study.found.law.uncentred(CHINCHILLA.free_of(draws), [-shift for shift in study.found.centre])
    value, _ = asked.evaluate(free)
    response, _ = CHINCHILLA.response_and_gradient(free, study.found.centred(*study.inputs))
    excess = sum_of_huber(response - np.log(study.loss), DELTA) - study.found.objective
    values = np.log(one.values) if asked.log else one.values
    inside = (value > values[0]) & (value < values[-1])
    assert inside.mean() > 0.95
    least = np.interp(value[inside], values, np.sqrt(one.excess)) ** 2
    assert (excess[inside] > least - 0.02 * one.threshold).all()


def test_intervals_grow_with_the_level_and_hold_the_estimate(study: Study) -> None:
    ends = []
    for level in (0.5, 0.8, 0.9, 0.99):
        one = study.profile(constant(study.found, "alpha"), level=level)
        assert one.low is not None and one.high is not None
        assert one.low < one.estimate < one.high
        ends.append((one.low, one.high))
    lows, highs = zip(*ends, strict=True)
    assert list(lows) == sorted(lows, reverse=True) and list(highs) == sorted(highs)


def test_near_its_least_the_profile_is_the_linearised_parabola_of_least_squares(study: Study) -> None:
    found = estimate(CHINCHILLA, study.inputs, study.loss, 1e3)
    plane = linearise(found, study.inputs, 1e3)
    asked = constant(found, "beta")
    one = profile(found, study.inputs, study.loss, 1e3, asked)
    error = float(plane.standard_error(np.eye(5)[4]))
    near = np.abs(one.values - one.estimate) < 0.6 * error
    assert near.sum() >= 3
    parabola = 0.5 * ((one.values[near] - one.estimate) / error) ** 2 * plane.objective_unit
    assert one.excess[near] == pytest.approx(parabola, rel=0.25, abs=1e-12)


def test_a_term_that_the_runs_do_not_show_has_a_profile_without_an_end() -> None:
    """Tokens so plentiful that theirs is a thousandth of the loss: β could be anything above some value."""
    rng = np.random.default_rng(1)
    params, tokens = np.repeat(np.geomspace(1e6, 1e8, 5), 4), np.tile(np.geomspace(1e12, 1e13, 4), 5)
    loss = CHINCHILLA.predict([400, 1e4, 1.7, 0.34, 0.5], params, tokens) * np.exp(0.003 * rng.standard_normal(20))
    found = estimate(CHINCHILLA, (params, tokens), loss, DELTA)
    shown, hidden = (profile(found, (params, tokens), loss, DELTA, constant(found, name)) for name in ("alpha", "beta"))
    assert hidden.flat
    assert not shown.flat


@pytest.mark.shared
def test_profiles_of_epochs_points_agree_with_their_bootstrap(epoch: pd.DataFrame) -> None:
    inputs, loss = (epoch["n_params"].to_numpy(), epoch["tokens"].to_numpy()), epoch["loss"].to_numpy()
    found = estimate(CHINCHILLA, inputs, loss, DELTA)
    target = tuple(float(value) for value in CHINCHILLA.optimum(found.theta, 1e23))
    made = {one.name: one for one in profiles(found, inputs, loss, DELTA, target=target)}  # type: ignore[arg-type]
    assert list(made) == ["alpha", "beta", "E", "n_exponent", "loss"]
    draws = draw(found, inputs, loss, DELTA, draws=1000, rng=np.random.default_rng(0))
    n_draws, _ = CHINCHILLA.exponents(draws)
    told = {"alpha": draws[:, 3], "beta": draws[:, 4], "E": draws[:, 2], "n_exponent": n_draws}
    told["loss"] = CHINCHILLA.predict(draws, *target)
    for name, drawn in told.items():
        one = made[name]
        assert one.low is not None and one.high is not None
        low, high = np.quantile(drawn, (0.05, 0.95))
        assert one.high - one.low == pytest.approx(high - low, rel=0.25), name
        assert low < one.estimate < high


@pytest.mark.slow
def test_nine_in_ten_profile_intervals_hold_the_truth() -> None:
    """80 studies of 35 runs, truths at random: nominal 90%, within three standard errors of it."""
    hits: dict[str, list[bool]] = {}
    for seed in range(80):
        study = Study(1000 + seed)
        for name, truth in study.true_values().items():
            found = study.found
            asked = {"n_exponent": n_exponent, "loss": lambda found: log_loss_at(found, *study.target)}  # noqa: B023
            one = study.profile(asked[name](found) if name in asked else constant(found, name))
            above = one.low is None or one.low <= truth
            hits.setdefault(name, []).append(above and (one.high is None or truth <= one.high))
    shares = {name: float(np.mean(found)) for name, found in hits.items()}
    assert all(abs(share - 0.9) < 0.1 for share in shares.values()), shares


@pytest.mark.slow
@settings(max_examples=6)
@given(
    st.sampled_from(["chinchilla", "kaplan", "skaling", "over-trained"]),
    st.integers(0, 500),
    st.sampled_from([(2, 4), (3, 5), (4, 6)]),
    st.sampled_from([0.003, 0.03, 0.3]),
)
@example("kaplan", 2, (2, 4), 0.3)
@example("kaplan", 8, (3, 5), 0.3)
@example("skaling", 12, (3, 5), 0.003)
def test_every_law_through_any_study_has_profiles_and_influence(
    name: str, seed: int, design: tuple[int, int], noise: float
) -> None:
    """Flat, bent, at a bound or without an end, but never a warning, and never less than nothing."""
    rng = np.random.default_rng(seed)
    truth, flops = random_small_truth(rng)
    runs = simulate_isoflop(truth, IsoflopDesign(*design, flops), noise, rng)
    inputs, loss = (runs["params"].to_numpy(), runs["tokens"].to_numpy()), runs["loss"].to_numpy()
    found = estimate(get_loss_law(name), inputs, loss, DELTA)
    top = 6 * float((inputs[0] * inputs[1]).max())
    for one in profiles(found, inputs, loss, DELTA, target=target_beyond(found, inputs[0], 10 * top)):
        assert np.isfinite(one.values).all() and (np.diff(one.values) >= 0).all()
        assert (one.excess >= 0).all() and one.excess.min() == 0
        assert one.low is None or one.high is None or one.low <= one.high
    assert np.isfinite(influence(found, inputs, loss, 6 * inputs[0] * inputs[1], DELTA).largest_shift).all()
