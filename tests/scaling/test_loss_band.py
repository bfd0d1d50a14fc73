from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.loss_band import LossBand, loss_band, on_the_way
from scaling.prediction import predict

TRUTH = np.array([406.4, 410.7, 1.69, 0.34, 0.28])
SHARES = (0.05, 0.1, 0.22, 0.46, 0.68)
NOISE, WAY_NOISE = 0.003, 0.004


def law(params: float, tokens: float) -> float:
    return float(CHINCHILLA.predict(TRUTH, params, tokens))


def curve(rng: np.random.Generator, params: float, tokens: float) -> tuple[dict[float, float], float]:
    """Losses on the way by tokens, and at the end: the law's, a constant share above it until the rate comes down."""
    end = law(params, tokens) * math.exp(NOISE * rng.standard_normal())
    ahead = end / law(params, tokens)
    on_way = {
        share * tokens: law(params, share * tokens) * ahead * math.exp(0.03 + WAY_NOISE * rng.standard_normal())
        for share in SHARES
    }
    return on_way, end


def study(seed: int) -> tuple[Fit, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    runs, looks = [], []
    for budget in (1e18, 3e18, 1e19, 3e19):
        for params in np.geomspace(0.25, 4, 7) * math.sqrt(budget / 120):
            tokens = budget / 6 / params
            on_way, end = curve(rng, params, tokens)
            key = f"{len(runs)}"
            runs.append(
                {
                    "run_key": key, "role": "fit", "status": "finished", "params_total": params, "tokens": tokens,
                    "flops_exact": budget, "loss_nats": end,
                }
            )  # fmt: skip
            looks += [{"run_key": key, "tokens": at, "held_out_loss": loss} for at, loss in on_way.items()]
    table = pd.DataFrame(runs)
    columns = table.rename(columns={"params_total": "params", "loss_nats": "loss"})[["params", "tokens", "loss"]]
    fit = fit_table(columns, params_convention="total", flops_convention="6nd", bootstrap=0, methods=("parametric",))
    return fit, table, pd.DataFrame(looks)


def band_of(seed: int, flops: float) -> LossBand:
    fit, table, looks = study(seed)
    params = math.sqrt(flops / 120)
    forecast = predict(fit, params=params, tokens=flops / 6 / params)
    band = loss_band(fit, forecast, on_the_way(fit, table, looks))
    assert band is not None
    return band


def test_the_band_holds_new_runs_and_their_own_curve_narrows_the_forecast() -> None:
    flops = 6e20
    params = math.sqrt(flops / 120)
    tokens = flops / 6 / params
    inside, renewed, narrower = [], [], []
    for seed in range(12):
        band = band_of(seed, flops)
        rng = np.random.default_rng(1000 + seed)
        for _ in range(8):
            on_way, end = curve(rng, params, tokens)
            for at, loss in on_way.items():
                expected = band.at(at)
                if expected is None:
                    assert at < 0.099 * tokens
                    continue
                low, high = expected.loss.low, expected.loss.high
                assert low is not None and high is not None
                inside.append(low <= loss <= high)
            last = max(on_way)
            made = band.renewed(last, on_way[last])
            assert made is not None and made.low is not None and made.high is not None
            assert band.final.low is not None and band.final.high is not None
            renewed.append(made.low <= end <= made.high)
            narrower.append((made.high - made.low) / (band.final.high - band.final.low))
    assert np.mean(inside) >= 0.85
    assert np.mean(renewed) >= 0.8
    assert max(narrower) < 1


def test_at_its_end_the_band_is_the_forecast_and_before_a_tenth_there_is_none() -> None:
    band = band_of(3, 6e20)
    end = band.points[-1]
    at_end = band.at(end.tokens)
    assert at_end is not None and at_end.loss.estimate == pytest.approx(band.final.estimate)
    assert band.at(0.05 * end.tokens) is None
    assert band.renewed(0.05 * end.tokens, 3.0) is None
    # What is measured at the end is known: nothing of the forecast's error is left.
    known = band.renewed(end.tokens, 2.5)
    assert known is not None and known.estimate == pytest.approx(2.5)
    assert LossBand.model_validate_json(band.model_dump_json()) == band


def test_without_curves_or_too_few_runs_there_is_no_band() -> None:
    fit, table, looks = study(0)
    assert on_the_way(fit, table, looks.iloc[:0]) == ()
    assert on_the_way(fit, table.head(3), looks) == ()
    assert loss_band(fit, predict(fit, flops=6e20), ()) is None
