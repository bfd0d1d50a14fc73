"""The frontier through iso-FLOP minima covers its own truth, and takes over where the law levels off too early."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from scaling.fit import IsoflopFit, IsoflopOptimum
from scaling.fits.frontier import fit_frontier, frontier_log_losses, levels_off_too_early
from scaling.fits.together import fit_table
from scaling.prediction import predict
from scaling.record import Interval

BUDGETS = np.geomspace(1e11, 1.1e12, 4)
NATS_PER_BIT_PER_BYTE = 1.75
"""ln 2 times 2.5 bytes a token: a vocabulary of 1,024."""


def minima(e: float, k: float, gamma: float, sd: float, rng: np.random.Generator, budgets: np.ndarray) -> IsoflopFit:
    """Iso-FLOP minima scattered by ``sd`` (share of the loss) around the frontier E + k C^-gamma."""
    half = 1.6448536 * sd
    optima = []
    for flops in budgets:
        loss = (e + k * flops**-gamma) * math.exp(sd * rng.standard_normal())
        optima.append(
            IsoflopOptimum(
                flops=flops,
                runs=5,
                status="ok",
                loss=Interval(estimate=loss, low=loss * (1 - half), high=loss * (1 + half)),
            )
        )
    return IsoflopFit(status="ok", optima=tuple(optima))


def test_the_intervals_hold_the_frontier_where_it_is_a_power_law_with_a_plausible_e() -> None:
    rng = np.random.default_rng(11)
    inside = {4.0: 0, 100.0: 0}
    studies = 400
    for _ in range(studies):
        e = rng.uniform(0.55, 1.4)
        gamma = rng.uniform(0.04, 0.12)
        k = (4.7 - e) * BUDGETS[0] ** gamma
        found = fit_frontier(
            minima(e, k, gamma, 0.004, rng, BUDGETS), (0.525, 1.4), draws=300, level=0.9, seed=int(rng.integers(1e9))
        )
        for multiple in inside:
            flops = multiple * BUDGETS[-1]
            draws = frontier_log_losses(found, flops)
            low, high = np.quantile(draws, (0.05, 0.95))
            inside[multiple] += low <= math.log(e + k * flops**-gamma) <= high
    assert 0.85 <= inside[4.0] / studies <= 0.99, inside
    assert 0.85 <= inside[100.0] / studies <= 0.99, inside


def toy_table(*, bytes_known: bool = True) -> pd.DataFrame:
    """Lines whose walls are steep (too few steps, too small a model) above a frontier that hardly bends."""
    rows = []
    for flops in BUDGETS:
        best = 3.5e4 * (flops / BUDGETS[0]) ** 0.5
        for step in (-2, -1, 0, 1, 2):
            params = best * 1.7**step
            frontier = 0.9 + 3.8 * (flops / BUDGETS[0]) ** -0.085
            loss = frontier * (1 + 0.045 * math.log(params / best) ** 2)
            row = {"params": params, "tokens": flops / 6 / params, "flops": flops, "loss": loss}
            rows.append(row | ({"bits_per_byte": loss / NATS_PER_BIT_PER_BYTE} if bytes_known else {}))
    return pd.DataFrame(rows)


def test_a_law_that_levels_off_too_early_gives_way_to_the_frontier_and_the_forecast_says_so() -> None:
    fit = fit_table(toy_table(), bootstrap=200)
    assert fit.parametric.parameters["E"].estimate > 0.8 * NATS_PER_BIT_PER_BYTE
    assert levels_off_too_early(fit.parametric, fit.frontier)
    assert "irreducible-implausible" in {note.code for note in fit.diagnostics}
    forecast = predict(fit, flops=4.2 * BUDGETS[-1])
    truth = 0.9 + 3.8 * (4.2 * BUDGETS[-1] / BUDGETS[0]) ** -0.085
    assert abs(forecast.loss.estimate / truth - 1) < 0.01
    assert forecast.loss.low is not None
    assert forecast.loss.high is not None
    assert forecast.loss.low < truth < forecast.loss.high
    assert "iso-FLOP minima" in forecast.assumptions[0]
    # The law by itself would have been far off: that is what the frontier is for.
    alone = predict(fit_table(toy_table(bytes_known=False), bootstrap=200), flops=4.2 * BUDGETS[-1])
    assert alone.loss.estimate / truth - 1 > 0.02


def test_without_bytes_nothing_is_known_of_e_and_the_law_stands_alone() -> None:
    fit = fit_table(toy_table(bytes_known=False), bootstrap=100)
    assert fit.frontier.status == "refused"
    assert "bits_per_byte" in (fit.frontier.reason or "")
    assert not levels_off_too_early(fit.parametric, fit.frontier)


def test_a_law_with_a_plausible_e_is_left_alone() -> None:
    rows = toy_table()
    rows["loss"] = 1.0 + 60 / rows["params"] ** 0.35 + 60 / rows["tokens"] ** 0.28
    rows["bits_per_byte"] = rows["loss"] / NATS_PER_BIT_PER_BYTE
    fit = fit_table(rows, bootstrap=100)
    assert fit.parametric.parameters["E"].estimate == pytest.approx(1.0, abs=0.05)
    assert not levels_off_too_early(fit.parametric, fit.frontier)


def test_two_minima_are_refused_with_how_many_are_needed() -> None:
    found = fit_frontier(
        minima(1.0, 60.0, 0.1, 0.004, np.random.default_rng(0), BUDGETS[:2]), (0.5, 1.4), draws=100, level=0.9
    )
    assert found.status == "refused"
    assert "2" in (found.reason or "")
    assert "3" in (found.reason or "")
