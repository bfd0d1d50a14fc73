from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.prediction import predict, score
from scaling.simulation import IsoflopDesign, simulate_isoflop

THETA = np.array([400.0, 400.0, 1.7, 0.34, 0.30])


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return simulate_isoflop(THETA, IsoflopDesign(4, 5, 1e19), 0.004, np.random.default_rng(5))


@pytest.fixture(scope="module")
def fit(runs: pd.DataFrame) -> Fit:
    return fit_table(runs, bootstrap=300)


def test_a_forecast_at_a_budget_is_the_forecast_at_its_optimum(fit: Fit) -> None:
    at_budget = predict(fit, flops=1e21)
    assert 6 * at_budget.params.estimate * at_budget.tokens.estimate == pytest.approx(1e21)
    assert at_budget.params.low is not None and at_budget.params.low < at_budget.params.estimate
    at_point = predict(fit, params=at_budget.params.estimate, tokens=at_budget.tokens.estimate)
    assert at_point.loss == at_budget.loss
    assert at_point.params.low is None
    truth = float(CHINCHILLA.predict(THETA, at_point.params.estimate, at_point.tokens.estimate))
    assert at_point.loss.low is not None and at_point.loss.high is not None
    assert at_point.loss.low < truth < at_point.loss.high


def test_intervals_widen_with_the_decades_of_extrapolation(fit: Fit) -> None:
    top = fit.fitted_range.flops[1]
    forecasts = [predict(fit, flops=top * factor) for factor in (0.5, 10, 1000)]
    assert [f.extrapolation_orders for f in forecasts] == pytest.approx([0, 1, 3])
    widths = [np.log(f.loss.high / f.loss.low) for f in forecasts]  # type: ignore[operator]
    assert widths[0] < widths[1] < widths[2]
    for told in forecasts:
        law = told.loss_if_law_holds
        assert law is not None and law.low is not None and law.high is not None
        assert np.log(law.high / law.low) < np.log(told.loss.high / told.loss.low)  # type: ignore[operator]
    assert any("decade^1.5" in line for line in forecasts[2].assumptions)


def test_flops_a_token_that_fall_with_size_move_the_optimum(fit: Fit) -> None:
    """With 6N FLOPs a token the search finds the formula's optimum; a fixed cost a token favours a larger model."""
    formula = predict(fit, flops=1e21)
    searched = predict(fit, flops=1e21, flops_per_token=lambda n: 6 * n)
    assert searched.params.estimate == pytest.approx(formula.params.estimate, rel=0.01)
    dearer = predict(fit, flops=1e21, flops_per_token=lambda n: 6 * n + 6 * formula.params.estimate)
    assert dearer.params.estimate > formula.params.estimate
    assert dearer.loss.estimate > formula.loss.estimate


def test_exact_flops_use_the_fitted_runs_own_ratio(runs: pd.DataFrame) -> None:
    exact = fit_table(runs.assign(flops=7.5 * runs.params * runs.tokens), bootstrap=50)
    assert exact.flops_per_param_token == pytest.approx(7.5)
    forecast = predict(exact, flops=1e21)
    assert 7.5 * forecast.params.estimate * forecast.tokens.estimate == pytest.approx(1e21)


def test_a_runs_own_flops_say_how_far_outside_it_lies(fit: Fit) -> None:
    top = fit.fitted_range.flops[1]
    assert predict(fit, params=1e9, tokens=1e9, flops=100 * top).extrapolation_orders == pytest.approx(2)


def test_a_fit_without_a_law_says_why_it_cant_predict_a_loss(runs: pd.DataFrame) -> None:
    fit = fit_table(runs, methods=("isoflop",), bootstrap=50)
    with pytest.raises(UserError, match=r"can't predict a loss.*N\* and D\*"):
        predict(fit, flops=1e21)


@pytest.mark.parametrize(
    "point",
    [{}, {"params": 1e9}, {"params": 1e9, "tokens": -1.0}, {"flops": float("inf")}, {"params": 0, "tokens": 1e9}],
)
def test_impossible_points_are_refused(fit: Fit, point: dict[str, float]) -> None:
    with pytest.raises(UserError):
        predict(fit, **point)


def test_scoring_uses_the_mean_of_the_replicates(fit: Fit) -> None:
    forecast = predict(fit, flops=1e20)
    mean = forecast.loss.estimate / 1.01
    outcome = score(forecast, [mean * 0.99, mean * 1.01], ["a", "b"])
    assert outcome.relative_error == pytest.approx(0.01)
    assert outcome.loss_spread == pytest.approx(mean * 0.02 / np.sqrt(2))
    assert outcome.forecast_key == forecast.key
    assert score(forecast, [forecast.loss.estimate], ["a"]).inside
    assert not score(forecast, [2 * forecast.loss.estimate], ["a"]).inside
    with pytest.raises(UserError, match="finished runs only"):
        score(forecast, [float("nan")], ["a"])
    with pytest.raises(UserError, match="0 losses"):
        score(forecast, [], [])
