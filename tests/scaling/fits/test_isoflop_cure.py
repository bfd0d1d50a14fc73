"""Iso-FLOP fits that were refused are fitted once the runs of their cure are there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.fit import Cure
from scaling.fits.isoflop.fit import fit_isoflop
from scaling.laws.chinchilla import CHINCHILLA
from scaling.table import read_table

TRUTH = [482.01, 2085.43, 1.81686, 0.34781, 0.36585]


def _runs(budgets: list[float], offsets: list[float], noise: float = 0.0005) -> pd.DataFrame:
    """Sizes at the budget's optimum times each of ``offsets``."""
    rows = [(float(CHINCHILLA.optimum(TRUTH, flops)[0]) * offset, flops) for flops in budgets for offset in offsets]
    params, flops = np.array(rows).T
    return _measured(params, flops / 6 / params, noise)


def _measured(params: np.ndarray, tokens: np.ndarray, noise: float) -> pd.DataFrame:
    shock = np.exp(noise * np.random.default_rng(len(params)).standard_normal(len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": CHINCHILLA.predict(TRUTH, params, tokens) * shock})


def _cure(runs: pd.DataFrame) -> Cure:
    fit, notes = fit_isoflop(read_table(runs), bootstrap=50)
    assert fit.status == "refused"
    (note,) = notes
    assert note.cure is not None and fit.reason == note.message
    assert note.cure.flops == pytest.approx(6 * sum(run.params * run.tokens for run in note.cure.runs))
    return note.cure


@pytest.mark.parametrize(
    ("budgets", "offsets"),
    [
        ([1e19, 1e20], [2.0, 4.0, 8.0, 16.0]),
        ([1e19, 1e20, 1e21], [0.06, 0.12, 0.25, 0.5]),
        ([1e19, 1e20], [0.5, 2.0]),
        ([1e19, 1e20, 1e21], [1.0]),
        ([1e20], [0.25, 0.5, 1.0, 2.0, 4.0]),
        ([1e20], [1.0, 2.0]),
    ],
    ids=["all too large", "all too small", "two sizes", "one size", "one line", "one short line"],
)
def test_with_the_runs_of_its_cure_the_exponent_is_found(budgets: list[float], offsets: list[float]) -> None:
    runs = _runs(budgets, offsets)
    cure = _cure(runs)
    params, tokens = (np.array([getattr(run, name) for run in cure.runs]) for name in ("params", "tokens"))
    after, _ = fit_isoflop(read_table(pd.concat([runs, _measured(params, tokens, 0.0005)])), bootstrap=200)
    assert after.status == "ok"
    exponent = after.n_exponent
    assert exponent is not None
    assert exponent.estimate == pytest.approx(0.36585 / (0.36585 + 0.34781), abs=0.1)


def test_the_cure_spends_on_the_cheapest_lines_and_at_their_budgets() -> None:
    cure = _cure(_runs([1e19, 1e20, 1e21], [2.0, 4.0, 8.0, 16.0]))
    assert sorted({float(f"{6 * run.params * run.tokens:.1g}") for run in cure.runs}) == [1e19, 1e20]
