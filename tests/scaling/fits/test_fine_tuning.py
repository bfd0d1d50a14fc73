"""The law of fine-tuning: forecasts larger data and models, with intervals that hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling import fit_law
from scaling.laws.fine_tuning import FINE_TUNING

TRUTH = (30.0, 0.12, 0.08, 1.2)
PARAMS, EXAMPLES = (1e9, 2e9, 4e9, 8e9, 16e9), (1e3, 4e3, 1.6e4, 6.4e4, 2.56e5)


def table(seed: int, noise: float = 0.003) -> pd.DataFrame:
    params, examples = (grid.ravel() for grid in np.meshgrid(PARAMS, EXAMPLES))
    loss = FINE_TUNING.predict(TRUTH, params, examples)
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return pd.DataFrame({"params": params, "finetuning_examples": examples, "loss": loss})


def test_it_forecasts_a_larger_model_on_more_examples() -> None:
    found = fit_law("fine-tuning", table(0), value="loss", columns={"x": "params"}, bootstrap=300, level=0.99)
    told = found.predict(64e9, 4e6)
    truth = float(FINE_TUNING.predict(TRUTH, 64e9, 4e6))
    assert told.low <= truth <= told.high
    assert told.estimate == pytest.approx(truth, rel=0.03)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """90% nominal over 200 tables: both exponents, and the loss of a model four times as large on 16 times the data."""
    target, hits = (64e9, 4e6), []
    truth = float(FINE_TUNING.predict(TRUTH, *target))
    for seed in range(200):
        found = fit_law("fine-tuning", table(seed), value="loss", columns={"x": "params"}, bootstrap=200, seed=seed)
        alpha, beta, line = found.parameters["alpha"], found.parameters["beta"], found.predict(*target, scatter=False)
        hits.append(
            [
                alpha.low <= TRUTH[1] <= alpha.high,  # type: ignore[operator]
                beta.low <= TRUTH[2] <= beta.high,  # type: ignore[operator]
                bool(line.low <= truth <= line.high),
            ]
        )
    assert np.mean(hits, axis=0) == pytest.approx(0.9, abs=0.06)
