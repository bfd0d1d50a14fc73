"""Where a small sweep's law levels off above what text admits, and what the forecast makes of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from scaling.fits.irreducible import levels_off_too_early, short_context
from scaling.fits.together import fit_table
from scaling.prediction import predict

BUDGETS = np.geomspace(1e11, 1.1e12, 4)
NATS_PER_BIT_PER_BYTE = 1.75
"""ln 2 times 2.5 bytes a token: a vocabulary of 1,024."""


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


def test_a_law_that_levels_off_too_early_is_told_and_the_forecast_holds_e_to_what_text_admits() -> None:
    fit = fit_table(toy_table(), bootstrap=200)
    assert fit.parametric.parameters["E"].estimate > 0.8 * NATS_PER_BIT_PER_BYTE
    assert levels_off_too_early(fit.parametric, fit.drift)
    assert "irreducible-implausible" in {note.code for note in fit.diagnostics}
    flops = 4.2 * BUDGETS[-1]
    best = 3.5e4 * (flops / BUDGETS[0]) ** 0.5
    forecast = predict(fit, params=best, tokens=flops / 6 / best)
    truth = 0.9 + 3.8 * (flops / BUDGETS[0]) ** -0.085
    assert forecast.loss_if_law_holds is not None
    assert forecast.loss_if_law_holds.estimate / truth - 1 > 0.02
    assert abs(forecast.loss.estimate / truth - 1) < 0.01
    assert forecast.loss.low is not None and forecast.loss.high is not None
    assert forecast.loss.low < truth < forecast.loss.high
    assert "what text admits" in forecast.assumptions[0]


def test_without_bytes_nothing_is_known_of_e() -> None:
    fit = fit_table(toy_table(bytes_known=False), bootstrap=100)
    assert fit.drift.irreducible is None
    assert not levels_off_too_early(fit.parametric, fit.drift)


def test_a_law_with_a_plausible_e_is_left_alone() -> None:
    rows = toy_table()
    rows["loss"] = 1.0 + 60 / rows["params"] ** 0.35 + 60 / rows["tokens"] ** 0.28
    rows["bits_per_byte"] = rows["loss"] / NATS_PER_BIT_PER_BYTE
    fit = fit_table(rows, bootstrap=100)
    assert fit.parametric.parameters["E"].estimate == pytest.approx(1.0, abs=0.05)
    assert not levels_off_too_early(fit.parametric, fit.drift)


def test_a_short_context_leaves_more_to_be_guessed() -> None:
    """Every place has fewer bytes before it than the context: more than what Shannon's readers lacked after 100."""
    low, high = short_context(100)
    assert low == pytest.approx(0.3 * np.mean(np.sqrt(100 / np.arange(1, 101))))
    assert high == pytest.approx(0.5 / 0.3 * low)
    gains = [short_context(size)[1] for size in (50, 200, 1000, 9000, 36000)]
    assert gains == sorted(gains, reverse=True) and 0.04 < gains[-1] < gains[-2] < 0.12
    table = toy_table()
    without = fit_table(table, bootstrap=50).drift.irreducible
    with_context = fit_table(table.assign(context=128), bootstrap=50).drift.irreducible
    assert without is not None and with_context is not None
    assert with_context[1] - without[1] == pytest.approx(short_context(128 * 2.5)[1] * NATS_PER_BIT_PER_BYTE, rel=0.02)
