from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.fits.compute_bins import compute_bins, units
from scaling.simulation import CurveDesign, IsoflopDesign, simulate_curves, simulate_isoflop
from scaling.table import read_table

THETA = np.array([400.0, 400.0, 1.7, 0.34, 0.30])


def _curves(points: int = 20) -> pd.DataFrame:
    return simulate_curves(THETA, CurveDesign(6, 1e18, width=32, points=points), 0.0, np.random.default_rng(0))


def test_curves_are_told_by_their_trunk_their_run_or_their_size() -> None:
    runs = _curves()
    assert len(np.unique(units(read_table(runs)))) == 6
    assert len(np.unique(units(read_table(runs.rename(columns={"trunk_key": "run_key"}))))) == 6
    assert len(np.unique(units(read_table(runs.drop(columns="trunk_key"))))) == 6
    alone = runs.assign(trunk_key=[f"{row}" for row in range(len(runs))])
    assert len(np.unique(units(read_table(alone)))) == 6


def test_curves_are_compared_at_common_flops_and_nowhere_beyond_their_ends() -> None:
    runs = _curves()
    bins = compute_bins(read_table(runs))
    assert bins.source == "curves"
    log_flops = bins.ln_flops[bins.present]
    np.testing.assert_allclose(
        log_flops, np.log(6) + bins.ln_params[bins.present] + bins.ln_tokens[bins.present], atol=1e-9
    )
    for at, row, present in zip(bins.middle, bins.ln_params, bins.present, strict=True):
        spans = runs.assign(c=np.log(6 * runs["params"] * runs["tokens"])).groupby("params")["c"].agg(["min", "max"])
        spanning = spans[(spans["min"] <= at) & (at <= spans["max"])]
        np.testing.assert_allclose(np.exp(row[present]), spanning.index.to_numpy(), rtol=1e-9)


def test_a_loss_between_two_points_of_a_curve_is_that_of_the_law() -> None:
    bins = compute_bins(read_table(_curves()))
    params, tokens = np.exp(bins.ln_params[bins.present]), np.exp(bins.ln_tokens[bins.present])
    truth = 1.7 + 400 / params**0.34 + 400 / tokens**0.30
    np.testing.assert_allclose(np.exp(bins.log_loss[bins.present]), truth, rtol=5e-4)


def test_runs_of_budgets_are_compared_within_each() -> None:
    runs = simulate_isoflop(THETA, IsoflopDesign(5, 6, 1e18), 0.0, np.random.default_rng(0))
    bins = compute_bins(read_table(runs))
    assert bins.source == "budgets"
    assert bins.sizes.tolist() == [6] * 5


def test_a_continuum_of_compute_is_cut_into_bins_of_equal_width() -> None:
    rng = np.random.default_rng(1)
    flops, params = np.exp(rng.uniform(np.log([1e17, 1e7]), np.log([1e20, 1e9]), size=(200, 2)).T)
    bins = compute_bins(read_table(pd.DataFrame({"params": params, "tokens": flops / 6 / params, "loss": 3.0})))
    assert bins.source == "runs"
    assert len(bins.sizes) == 25 and bins.present.sum() == 200
    widths = [np.ptp(row[present]) for row, present in zip(bins.ln_flops, bins.present, strict=True)]
    assert max(widths) <= np.log(1000) / 25 + 1e-9


def test_a_size_stands_for_half_of_the_way_to_its_neighbours() -> None:
    bins = compute_bins(read_table(_curves()))
    step = np.log(32) / 5
    several = bins.present & (bins.sizes > 1)[:, None]
    np.testing.assert_allclose(bins.cell[several], step, rtol=1e-9)
