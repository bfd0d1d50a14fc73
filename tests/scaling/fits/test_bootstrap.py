from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scaling.fits.bootstrap import (
    interval_of,
    resample_points,
    resample_residuals,
    resample_wild,
    residual_scale,
    stored_draws,
    unknowns_with_clusters,
)


def test_every_resample_of_points_has_as_many() -> None:
    weights = resample_points(30, 200, np.random.default_rng(0))
    assert weights.shape == (200, 30)
    assert (weights.sum(axis=1) == 30).all()
    assert weights.var() == pytest.approx(29 / 30, abs=0.05)


def test_clusters_are_drawn_whole() -> None:
    clusters = np.array(["a", "a", "b", "c", "c", "c"])
    weights = resample_points(6, 100, np.random.default_rng(0), clusters)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_redrawn_noise_gives_students_interval_of_a_mean() -> None:
    """For the mean of eight numbers, one unknown, the residual bootstrap must equal the textbook t interval."""
    values = np.random.default_rng(4).standard_normal(8)
    residuals = values - values.mean()
    fitted = np.full(8, values.mean())
    means = resample_residuals(fitted, residuals, 1, 200_000, np.random.default_rng(0)).mean(axis=1)
    scale = residual_scale(residuals, 1) / np.sqrt(8)
    expected = stats.t.interval(0.9, 7, loc=values.mean(), scale=scale)
    assert np.quantile(means, [0.05, 0.95]) == pytest.approx(expected, rel=0.01, abs=0.01)


def test_branches_of_a_trunk_share_half_of_the_noise() -> None:
    clusters = np.array([0, 0, 1])
    draws = resample_residuals(np.zeros(3), np.array([1.0, -1.0, 1.0]), 0, 100_000, np.random.default_rng(0), clusters)
    correlation = np.corrcoef(draws.T)
    assert correlation[0, 1] == pytest.approx(0.5, abs=0.05)
    assert correlation[0, 2] == pytest.approx(0, abs=0.05)


def test_one_bad_run_does_not_set_the_scale() -> None:
    residuals = 0.01 * np.random.default_rng(0).standard_normal(40)
    clean = residual_scale(residuals, 5)
    assert clean == pytest.approx(0.01, rel=0.3)
    residuals[7] = 1.0
    assert residual_scale(residuals, 5) < 2.5 * clean


def test_an_interval_holds_its_estimate_and_draws_are_rounded() -> None:
    interval = interval_of(5.0, np.array([1.0, 2.0, 3.0]), 0.9)
    assert interval.high == 5.0
    assert stored_draws(np.array([[1 / 3]])) == ((0.3333333333,),)


def test_wild_noise_keeps_its_size_where_it_was() -> None:
    residuals = np.array([0.1, -0.2, 0.3, -4.0])
    draws = resample_wild(np.zeros(4), residuals, 1, 5000, np.random.default_rng(0), np.array([0, 0, 1, 2]))
    assert np.abs(draws) == pytest.approx(np.broadcast_to(np.abs(residuals) * np.sqrt(4 / 3), (5000, 4)))
    assert (np.sign(draws[:, 0]) == -np.sign(draws[:, 1])).all()
    assert abs(np.mean(np.sign(draws[:, 0]) * np.sign(draws[:, 2]))) < 0.05


def test_a_fit_takes_more_of_the_noise_that_trunks_share() -> None:
    """The mean squared residual of lines through clustered noise is what n - tr((I - H)R) says, not n - 2."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(5), 4)
    design = np.column_stack((np.ones(20), np.repeat(np.linspace(-1, 1, 5), 4)))
    unknowns = unknowns_with_clusters(design, clusters)
    noise = np.sqrt(0.5) * (rng.standard_normal((4000, 20)) + rng.standard_normal((4000, 5))[:, clusters])
    left = noise - noise @ np.linalg.pinv(design).T @ design.T
    assert (left**2).sum(axis=1).mean() == pytest.approx(20 - unknowns, rel=0.02)
    assert unknowns > 4.5
    assert unknowns_with_clusters(design, np.arange(20)) == pytest.approx(2)
