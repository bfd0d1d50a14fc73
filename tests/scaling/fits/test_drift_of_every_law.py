"""The drift beside any law of loss: where the law is true, its forecast is the law's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scaling import laws
from scaling.fits.drift import fit_drift

TRUTHS = {
    "chinchilla": [482.0, 2085.0, 1.82, 0.348, 0.366],
    "kaplan": [8.8e13, 5.4e13, 0.076, 0.095],
    "over-trained": [166.211, 366.687, -0.272851, 1.836648],
    "skaling": [1500.0, 0.9, 1.7, 0.7, 0.75, 0.6],
}


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_where_the_law_is_true_its_drift_forecasts_it(name: str) -> None:
    """35 runs from 1e18 to 2e20 FLOPs, noise 0.1%; told at ten times the largest, near the optimum."""
    law, theta = laws.get_loss_law(name), np.array(TRUTHS[name])
    rng = np.random.default_rng(0)
    best, _ = law.optimum(theta, np.repeat(np.geomspace(1e18, 2e20, 5), 7))
    params = best * np.tile(np.geomspace(0.25, 4, 7), 5)
    tokens = np.repeat(np.geomspace(1e18, 2e20, 5), 7) / 6 / params
    loss = law.predict(theta, params, tokens) * np.exp(0.001 * rng.standard_normal(35))
    model = fit_drift(law, params, tokens, loss)
    size, horizon = (float(value) for value in law.optimum(theta, 2e21))
    told, truth = model.predictive(size, horizon), math.log(float(law.predict(theta, size, horizon)))
    assert told.mean == pytest.approx(truth, abs=0.005)
    assert told.quantile(0.02) < truth < told.quantile(0.98)
    # Nowhere near the drift of real sweeps, and not above what is believed before the data.
    assert model.tau[0] < 0.04 and model.tau[1] < 0.07
