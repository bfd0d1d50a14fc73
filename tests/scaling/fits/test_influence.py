"""Leverage and delete-one refits, against the textbook, against refits by hand and against what was measured before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.fits.estimate import LEAST_SQUARES, Estimate, draw, estimate
from scaling.fits.influence import Influence, influence, jackknife_error
from scaling.fits.linearised import linearise
from scaling.laws.chinchilla import CHINCHILLA
from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop

Inputs = tuple[np.ndarray, np.ndarray]


def _found(runs: pd.DataFrame, delta: float = 1e-3) -> tuple[Estimate, Inputs, np.ndarray]:
    name = "n_params" if "n_params" in runs else "params"
    inputs, loss = (runs[name].to_numpy(float), runs["tokens"].to_numpy(float)), runs["loss"].to_numpy(float)
    return estimate(CHINCHILLA, inputs, loss, delta), inputs, loss


def _pull(runs: pd.DataFrame, **options: object) -> Influence:
    found, inputs, loss = _found(runs)
    return influence(found, inputs, loss, 6 * inputs[0] * inputs[1], 1e-3, **options)  # type: ignore[arg-type]


@pytest.mark.shared
def test_the_jackknife_sees_on_epochs_points_what_the_bootstrap_does_not(epoch: pd.DataFrame) -> None:
    """science.md: SE(α) 0.0226 by delete-one jackknife, 0.0152 by the bootstrap of points."""
    errors = jackknife_error(_pull(epoch).theta_nP)
    assert errors[3] == pytest.approx(0.0226, abs=1e-4)
    found, inputs, loss = _found(epoch)
    draws = draw(found, inputs, loss, 1e-3, draws=1000, rng=np.random.default_rng(0), method="points")
    assert draws[:, 3].std() == pytest.approx(0.0152, rel=0.08)


@pytest.mark.shared
def test_the_points_that_besiroglu_dropped_are_those_that_stand_out(shared_data: Path) -> None:
    """Of the 245 points the first five, of the highest losses, move β from 0.367 to 0.453 (data/SOURCES.md)."""
    pull = _pull(pd.read_csv(shared_data / "published" / "epoch_chinchilla_245.csv"))
    assert np.argmax(pull.largest_shift) == 0 and pull.largest_shift[0] > 1
    assert set(np.flatnonzero(np.abs(pull.scaled_residuals) > 5).tolist()) == {0, 1, 2, 3}


def test_a_run_left_out_is_the_fit_of_the_others(laptop_study: tuple[np.ndarray, pd.DataFrame]) -> None:
    _, runs = laptop_study
    pull = _pull(runs)
    for left_out in (0, 7, 14):
        alone, _, _ = _found(runs.drop(index=left_out))
        assert pull.theta_nP[left_out, 2:] == pytest.approx(alone.theta[2:], rel=2e-3)
        assert pull.loss[left_out] == pytest.approx(float(CHINCHILLA.predict(alone.theta, *pull.target)), rel=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(3, 5), st.integers(4, 7))
def test_leverages_lie_between_nothing_and_one_and_sum_to_the_constants(seed: int, budgets: int, sizes: int) -> None:
    rng = np.random.default_rng(seed)
    theta, flops = random_small_truth(rng)
    found, inputs, _ = _found(simulate_isoflop(theta, IsoflopDesign(budgets, sizes, flops), 0.005, rng))
    plane = linearise(found, inputs, 1e-3)
    assert (plane.leverage > 0).all() and (plane.leverage < 1 + 1e-9).all()
    assert plane.leverage.sum() == pytest.approx(5 - len(found.at_bound))


def test_the_run_at_the_end_of_the_design_has_the_most_leverage() -> None:
    rng = np.random.default_rng(0)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(3, 5, flops), 0.003, rng)
    far = pd.DataFrame({"params": [runs["params"].max() * 30], "tokens": [runs["tokens"].max() * 30], "loss": [0.0]})
    far["loss"] = CHINCHILLA.predict(theta, far["params"], far["tokens"])
    assert np.argmax(_pull(pd.concat([runs, far], ignore_index=True)).leverage) == len(runs)


def test_the_linearised_error_of_least_squares_is_the_scatter_of_refits() -> None:
    """With the quadratic loss the covariance is σ²(JᵀJ)⁻¹: what refits of redrawn noise scatter by."""
    rng = np.random.default_rng(4)
    theta, flops = random_small_truth(rng)
    design = IsoflopDesign(5, 7, flops)
    found, inputs, loss = _found(simulate_isoflop(theta, design, 0.002, rng), LEAST_SQUARES)
    plane = linearise(found, inputs, LEAST_SQUARES)
    errors = np.sqrt(np.diag(plane.covariance))[3:]
    draws = draw(found, inputs, loss, LEAST_SQUARES, draws=600, rng=rng)
    assert errors == pytest.approx(draws[:, 3:].std(axis=0), rel=0.15)


def test_a_huber_loss_below_the_noise_costs_precision_as_least_absolute_deviations_do() -> None:
    """Under normal noise far above δ the efficiency is 2/π: standard errors grow by sqrt(π/2) = 1.25."""
    rng = np.random.default_rng(4)
    theta, flops = random_small_truth(rng)
    found, inputs, _ = _found(simulate_isoflop(theta, IsoflopDesign(5, 7, flops), 0.02, rng))
    sharp, blunt = (linearise(found, inputs, delta) for delta in (1e-6, LEAST_SQUARES))
    ratio = np.sqrt(np.diag(sharp.covariance) / np.diag(blunt.covariance))
    assert ratio == pytest.approx(np.sqrt(np.pi / 2), rel=1e-3)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    sample = np.random.default_rng(0).standard_normal(50)
    without = (sample.sum() - sample) / 49
    assert float(jackknife_error(without)) == pytest.approx(sample.std(ddof=1) / np.sqrt(50), rel=1e-9)
