"""The law and its drift: exact where there is none, better where there is, honest about the distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.fits.drift import _inverse_correlation, fit_drift
from scaling.fits.forecasting import representatives
from scaling.laws.chinchilla import CHINCHILLA
from scaling.simulation import IsoflopDesign, simulate_isoflop

THETA = np.array([400.0, 400.0, 1.7, 0.34, 0.30])

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _runs(noise: float, seed: int, slope: float = 0.0, kink: float = 1e19) -> Arrays:
    """Five lines of seven; beyond ``kink`` FLOPs the reducible loss leaves the law by ``slope`` a decade."""
    runs = simulate_isoflop(THETA, IsoflopDesign(5, 7, 1e19), noise, np.random.default_rng(seed))
    params, tokens, loss = (runs[name].to_numpy() for name in ("params", "tokens", "loss"))
    return params, tokens, _bent(params, tokens, loss, slope, kink)


def _bent(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, slope: float, kink: float) -> np.ndarray:
    decades = np.maximum(np.log10(6 * params * tokens / kink), 0)
    return THETA[2] + (loss - THETA[2]) * np.exp(slope * decades)


def _optimum(flops: float) -> tuple[float, float]:
    params, tokens = CHINCHILLA.optimum(THETA, flops)
    return float(params), float(tokens)


def test_where_the_law_is_true_the_forecast_is_the_laws() -> None:
    model = fit_drift(CHINCHILLA, *_runs(1e-4, 0))
    for factor in (1.0, 10.0, 100.0):
        point = _optimum(1.6e20 * factor)
        assert model.predictive(*point).mean == pytest.approx(
            math.log(float(CHINCHILLA.predict(THETA, *point))), abs=0.002 * factor**0.5
        )


def test_a_bend_is_carried_on_where_the_law_alone_forgets_it() -> None:
    """The exponent of the reducible loss falls by a tenth from 1e19 FLOPs; told at ten times the largest budget."""
    wins = 0
    for seed in range(6):
        runs = _runs(0.003, seed, slope=0.12)
        model = fit_drift(CHINCHILLA, *runs)
        params, tokens = _optimum(1.6e21)
        point = np.array([params]), np.array([tokens])
        truth = math.log(float(_bent(*point, CHINCHILLA.predict(THETA, *point), 0.12, 1e19)[0]))
        plain = math.log(float(CHINCHILLA.predict(model.plain.theta, params, tokens)))
        told = model.predictive(params, tokens)
        wins += abs(told.mean - truth) < abs(plain - truth)
        assert told.quantile(0.05) < truth < told.quantile(0.95)
    assert wins >= 5


def test_the_interval_widens_with_the_distance_and_without_noise_it_is_narrower() -> None:
    model = fit_drift(CHINCHILLA, *_runs(0.004, 1))
    spread = [model.predictive(*_optimum(1.6e20 * factor)).sd for factor in (1, 10, 100, 1000)]
    assert spread == sorted(spread)
    assert spread[2] > 2 * spread[0]
    point = _optimum(1.6e20)
    assert model.predictive(*point, noise=False).sd < model.predictive(*point).sd


def test_a_quantile_is_that_of_the_mixture() -> None:
    told = fit_drift(CHINCHILLA, *_runs(0.004, 2)).predictive(*_optimum(1e21))
    rng = np.random.default_rng(0)
    component = rng.choice(len(told.weight_K), size=200_000, p=told.weight_K)
    sample = told.mean_K[component] + np.sqrt(told.variance_K[component]) * rng.standard_normal(200_000)
    assert sample.mean() == pytest.approx(told.mean, abs=4 * told.sd / math.sqrt(200_000))
    assert sample.std() == pytest.approx(told.sd, rel=0.02)
    for probability in (0.05, 0.5, 0.95):
        assert np.mean(sample <= told.quantile(probability)) == pytest.approx(probability, abs=0.004)


def test_one_absurd_run_hardly_moves_the_forecast() -> None:
    params, tokens, loss = _runs(0.003, 3)
    point = _optimum(1e21)
    clean = fit_drift(CHINCHILLA, params, tokens, loss).predictive(*point)
    spoilt = loss.copy()
    spoilt[np.argmin(loss)] *= 1.2
    assert abs(fit_drift(CHINCHILLA, params, tokens, spoilt).predictive(*point).mean - clean.mean) < clean.sd


def test_a_known_irreducible_loss_is_kept_to() -> None:
    """Far beyond the runs the forecast goes down to the E that text admits, whatever these few lines say."""
    runs = _runs(0.003, 4)
    far = _optimum(1e28)
    low, high = (
        math.exp(fit_drift(CHINCHILLA, *runs, irreducible=known).predictive(*far).mean)
        for known in ((1.0, 1.2), (1.9, 2.0))
    )
    assert low < 1.55 < high


def test_thousands_of_checkpoints_are_thinned_to_what_they_tell() -> None:
    rng = np.random.default_rng(0)
    params = np.repeat(np.geomspace(1e7, 1e9, 10), 500)
    tokens = np.tile(np.geomspace(1e8, 1e11, 500), 10)
    loss = CHINCHILLA.predict(THETA, params, tokens) * np.exp(0.002 * rng.standard_normal(5000))
    kept, _ = representatives(params, tokens, loss)
    assert 100 < len(kept) <= 400
    assert kept[:, 2] == pytest.approx(CHINCHILLA.predict(THETA, kept[:, 0], kept[:, 1]), rel=0.01)
    trunks = np.repeat(np.arange(10), 500)
    branches, of_trunk = representatives(params, tokens, loss, trunks)
    assert of_trunk is not None
    assert len(of_trunk) == len(branches)
    assert len(set(of_trunk)) == 10
    assert branches[:, 0] == pytest.approx(np.geomspace(1e7, 1e9, 10)[of_trunk]), "means stay within their trunk"
    few, _ = representatives(params[:100], tokens[:100], loss[:100])
    assert (few == np.column_stack((params[:100], tokens[:100], loss[:100]))).all()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.floats(0, 0.95))
def test_noise_that_branches_share_is_counted_by_the_inverse_of_its_correlation(
    trunks: list[int], share: float
) -> None:
    trunk_n = np.array(trunks)
    correlation_nn = np.where(trunk_n[:, None] == trunk_n, share, 0.0)
    np.fill_diagonal(correlation_nn, 1.0)
    count_n, shared = _inverse_correlation(trunk_n, len(trunks), share)
    inverse_nn = np.diag(count_n)
    for factor, rows in shared:
        inverse_nn[np.ix_(rows, rows)] += factor
    assert inverse_nn @ correlation_nn == pytest.approx(np.eye(len(trunks)), abs=1e-9)
