"""Do nominal 90% intervals hold the truth 90% of the time? Simulated studies of 15 to 20 runs at laptop scale.

Shapes: S studies, Q quantities.
"""

from __future__ import annotations

import numpy as np
import pytest

from scaling.fits.isoflop import fit_isoflop
from scaling.fits.parametric import fit_parametric
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.prediction import predict
from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop
from scaling.table import Table, read_table

FACTORS = (4, 10, 100)
QUANTITIES = ("exponent of N", "iso-FLOP exponent", "L at 4x", "L at 10x", "L at 100x", "N* at 10x")


def _study(seed: int) -> tuple[np.ndarray, Table, float, np.random.Generator]:
    """A random truth, its 15 or 20 runs on iso-FLOP lines not quite centred, and the noise of log loss."""
    rng = np.random.default_rng([2026, seed])
    theta, middle_flops = random_small_truth(rng)
    design = IsoflopDesign(
        budgets=int(rng.integers(3, 5)),
        sizes=5,
        middle_flops=middle_flops,
        step=float(rng.uniform(3, 4)),
        miss=float(np.exp(rng.uniform(-0.4, 0.4))),
    )
    noise = float(rng.uniform(0.003, 0.01))
    return theta, read_table(simulate_isoflop(theta, design, noise, rng)), noise, rng


def _hits(seed: int, bootstrap: int) -> list[bool]:
    """Which intervals hold the truth; those of L and N* come from the law's draws alone."""
    theta, table, _, _ = _study(seed)
    parametric, _ = fit_parametric(table, bootstrap=bootstrap, diagnose=False)
    isoflop, _ = fit_isoflop(table, bootstrap=bootstrap)
    truth = float(CHINCHILLA.exponents(theta)[0])
    hits = []
    for interval in (parametric.n_exponent, isoflop.n_exponent):
        assert interval is not None and interval.low is not None and interval.high is not None
        hits.append(interval.low <= truth <= interval.high)
    draws, top = np.array(parametric.draws), float(table.flops.max())
    for factor in FACTORS:
        params, tokens = CHINCHILLA.optimum(theta, factor * top)
        low, high = np.quantile(CHINCHILLA.predict(draws, params, tokens), [0.05, 0.95])
        hits.append(bool(low <= CHINCHILLA.predict(theta, params, tokens) <= high))
    low, high = np.quantile(CHINCHILLA.optimum(draws, 10 * top)[0], [0.05, 0.95])
    hits.append(bool(low <= CHINCHILLA.optimum(theta, 10 * top)[0] <= high))
    return hits


def _forecast(seed: int) -> list[tuple[bool, float]]:
    """Whether a new run's measured loss falls in the forecast's interval, and the interval's half-width in log loss, at
    each factor beyond the largest budget."""
    theta, table, noise, rng = _study(seed)
    fit = fit_table(table, methods=("parametric",), bootstrap=0, diagnose=False)
    told = []
    for factor in FACTORS:
        params, tokens = (float(value) for value in CHINCHILLA.optimum(theta, factor * table.flops.max()))
        loss = predict(fit, params=params, tokens=tokens).loss
        measured = float(CHINCHILLA.predict(theta, params, tokens)) * np.exp(noise * rng.standard_normal())
        assert loss.low is not None and loss.high is not None
        told.append((loss.low <= measured <= loss.high, float(np.log(loss.high / loss.low) / 2)))
    return told


def test_intervals_of_forty_small_studies_are_not_far_too_narrow() -> None:
    """A quick watch: with true coverage 90%, fewer than 31 of 40 has a probability below 1%."""
    coverage = np.mean([_hits(seed, 100) for seed in range(40)], axis=0)
    assert (coverage >= 31 / 40).all(), dict(zip(QUANTITIES, coverage, strict=True))


@pytest.mark.slow
def test_ninety_per_cent_intervals_hold_the_truth_of_85_to_95_per_cent_of_studies() -> None:
    """200 studies; one standard error of a coverage is 2.1%, and two of them are allowed beyond the bounds."""
    coverage = np.mean([_hits(seed, 200) for seed in range(200)], axis=0)
    print(dict(zip(QUANTITIES, coverage.round(3).tolist(), strict=True)))
    assert (coverage >= 0.85 - 0.042).all() and (coverage <= 0.95 + 0.042).all(), dict(
        zip(QUANTITIES, coverage, strict=True)
    )


@pytest.mark.slow
def test_forecasts_hold_the_measured_loss_of_a_new_run_and_stay_useful() -> None:
    """Inside the law the allowance for a law that drifts can only widen: at least 88% at every distance, and at four
    times the largest budget a half-width that still tells one size from another."""
    told = np.array([_forecast(seed) for seed in range(300)])
    coverage, half_width = told[..., 0].mean(axis=0), np.median(told[..., 1], axis=0)
    print(dict(zip(FACTORS, zip(coverage.round(3), half_width.round(4), strict=True), strict=True)))
    assert (coverage >= 0.88).all()
    assert half_width[0] < 0.04
    assert (np.diff(half_width) > 0).all()
