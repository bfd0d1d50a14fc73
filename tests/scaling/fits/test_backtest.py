from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.fits.backtest import PRIOR_SD_PER_DECADE, compute_cuts, model_sd_per_decade
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.prediction import predict
from scaling.simulation import IsoflopDesign, simulate_isoflop

THETA = np.array([400.0, 400.0, 1.7, 0.34, 0.30])


def _drift(bend: float, seed: int = 0) -> float:
    """k of a study of six lines over 2.5 decades whose truth bends away from the law by ``bend`` a decade²."""
    rng = np.random.default_rng(seed)
    runs = simulate_isoflop(THETA, IsoflopDesign(6, 7, 1e19, step=3.2), 0.002, rng)
    flops = (6 * runs.params * runs.tokens).to_numpy()
    decades = np.log10(flops / flops.min())
    loss = runs.loss.to_numpy() * np.exp(bend * np.maximum(decades - 1.2, 0) ** 2)
    params, tokens = runs.params.to_numpy(), runs.tokens.to_numpy()
    return model_sd_per_decade(CHINCHILLA, params, tokens, flops, loss, 1e-3, rng)[0]


def test_a_truth_that_bends_widens_the_forecast_and_one_that_does_not_stays_near_the_prior() -> None:
    straight, bent = _drift(0.0), _drift(0.08)
    assert straight < 1.2 * PRIOR_SD_PER_DECADE
    assert bent > 3 * straight


def test_bands_above_the_cuts_never_overlap() -> None:
    for flops in (np.repeat([1e18, 4e18, 1.6e19, 6.4e19], 5), np.geomspace(1e18, 1e21, 100)):
        cuts = compute_cuts(flops)
        assert len(cuts) == 3
        assert np.sum([band for _, band in cuts], axis=0).max() == 1
        assert all(flops[below].max() < flops[band].min() for below, band in cuts)


def test_too_few_runs_leave_the_prior_and_say_so() -> None:
    runs = simulate_isoflop(THETA, IsoflopDesign(3, 4, 1e19), 0.004, np.random.default_rng(0))
    fit = fit_table(runs, bootstrap=100)
    assert fit.parametric.model_sd_per_decade == pytest.approx(PRIOR_SD_PER_DECADE)
    assert "no-back-test" in {note.code for note in fit.diagnostics}


@pytest.mark.shared
def test_leaving_out_epochs_largest_runs_predicts_them(epoch: pd.DataFrame) -> None:
    """Fitted below 3e20 FLOPs, predicting the 23 runs from 1e21: parameter draws alone cover 17%, residuals 43%."""
    fit = fit_table(epoch[epoch["flops"] < 3e20], bootstrap=500)
    top = epoch[epoch["flops"] >= 1e21]
    forecasts = [predict(fit, params=run.n_params, tokens=run.tokens) for run in top.itertuples()]
    inside = [f.loss.low <= loss <= f.loss.high for f, loss in zip(forecasts, top["loss"], strict=True)]  # type: ignore[operator]
    errors = [f.loss.estimate / loss - 1 for f, loss in zip(forecasts, top["loss"], strict=True)]
    assert len(top) == 23
    assert float(np.sqrt(np.mean(np.square(errors)))) < 0.02
    assert np.mean(inside) > 0.5
