"""Several laws at once: the true one gets the weight, and where they disagree the interval says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scaling.fits.averaged import fit_averaged
from scaling.fits.drift import fit_drift
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.skaling import SKALING
from scaling.prediction import predict
from scaling.simulation import IsoflopDesign, simulate_isoflop

THETA = np.array([400.0, 400.0, 1.7, 0.34, 0.30])


def _runs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    runs = simulate_isoflop(THETA, IsoflopDesign(5, 7, 1e19), 0.003, np.random.default_rng(seed))
    return runs["params"].to_numpy(), runs["tokens"].to_numpy(), runs["loss"].to_numpy()


def test_one_law_is_its_own_average() -> None:
    runs = _runs(0)
    alone, averaged = fit_drift(CHINCHILLA, *runs), fit_averaged([CHINCHILLA], *runs)
    assert averaged.weights == (1.0,)
    assert averaged.tau == pytest.approx(alone.tau)
    assert averaged.predictive(1e9, 2e10).quantile(0.05) == pytest.approx(alone.predictive(1e9, 2e10).quantile(0.05))


def test_a_law_that_is_wrong_here_gets_less_weight_than_the_true_one() -> None:
    """The truth couples its two terms strongly (k = 0.4): Skaling's law has it, Chinchilla's does not."""
    rng = np.random.default_rng(0)
    params, tokens, _ = _runs(0)
    truth = np.array([6.0, 8.0, 1.7, 0.85, 0.75, 0.4])
    loss = SKALING.predict(truth, params, tokens) * np.exp(0.001 * rng.standard_normal(len(params)))
    averaged = fit_averaged([CHINCHILLA, SKALING], params, tokens, loss)
    assert averaged.weights[1] > 0.6
    assert math.fsum(averaged.weights) == pytest.approx(1)


def test_the_average_is_the_mixture_of_its_members() -> None:
    averaged = fit_averaged([CHINCHILLA, SKALING], *_runs(1))
    told = averaged.predictive(3e9, 6e10)
    members = [member.predictive(3e9, 6e10) for member in averaged.members]
    assert told.weight_K.sum() == pytest.approx(1)
    assert told.mean == pytest.approx(sum(w * one.mean for w, one in zip(averaged.weights, members, strict=True)))
    between = sum(w * (one.mean - told.mean) ** 2 for w, one in zip(averaged.weights, members, strict=True))
    within = sum(w * one.sd**2 for w, one in zip(averaged.weights, members, strict=True))
    assert told.sd**2 == pytest.approx(within + between)


def test_a_forecast_says_which_laws_it_averages() -> None:
    runs = simulate_isoflop(THETA, IsoflopDesign(4, 5, 1e19), 0.004, np.random.default_rng(5))
    forecast = predict(fit_table(runs, average=["skaling"], bootstrap=50, diagnose=False), flops=1e21)
    line = next(line for line in forecast.assumptions if line.startswith("average"))
    assert "chinchilla" in line and "skaling" in line and "%" in line
