"""Over-optimisation's figure shows what its fit says; drawn at both widths, nothing clipped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.figures import over_optimisation as figure_of
from analysis.figures.gallery import laid_out
from analysis.over_optimisation_data import OverOptimisation, over_optimisation
from analysis.plotly_over_optimisation import over_optimisation_plots
from analysis.style import COLUMN_INCHES, PAGE_INCHES, settings
from scaling.errors import UserError
from scaling.laws.over_optimisation import OVER_OPTIMISATION_BEST_OF_N, OVER_OPTIMISATION_RL
from scaling.preference.best_of_n import kl_best_of_n

from .test_figures import clipped

TRUTHS = {"best-of-n": (0.2, 0.5, 0.11), "PPO": (0.2, 0.42, 0.25), "DPO": (0.2, 0.45, 0.2)}


def table() -> pd.DataFrame:
    """Three methods with three seeds each; DPO stops before its peak, and has no proxy."""
    rng, parts = np.random.default_rng(0), []
    for method, truth in TRUTHS.items():
        bon = method == "best-of-n"
        law = OVER_OPTIMISATION_BEST_OF_N if bon else OVER_OPTIMISATION_RL
        kl = kl_best_of_n(2 ** np.arange(11)) if bon else np.append(0, np.geomspace(0.1, 40, 12))
        kl = kl[kl < 2] if method == "DPO" else kl
        for seed in range(3):
            gold = law.predict(truth, np.maximum(kl, 1e-12)) + 0.01 * rng.standard_normal(len(kl))
            proxy = np.nan if method == "DPO" else 0.2 + 0.5 * np.sqrt(kl)
            parts.append(
                pd.DataFrame(
                    {"run": f"{method} {seed}", "method": method, "seed": seed, "kl_nats": kl, "gold": gold,
                     "proxy": proxy, "answer_tokens": 20}
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def data() -> OverOptimisation:
    return over_optimisation(table(), bootstrap=200)


def test_each_method_has_its_law_and_its_peak(data: OverOptimisation) -> None:
    assert [curve.method for curve in data.curves] == list(TRUTHS)
    best, ppo, dpo = data.curves
    assert (best.fit.law, ppo.fit.law) == (OVER_OPTIMISATION_BEST_OF_N.name, OVER_OPTIMISATION_RL.name)
    for curve, law in ((best, OVER_OPTIMISATION_BEST_OF_N), (ppo, OVER_OPTIMISATION_RL)):
        peak = curve.fit.peak_sqrt_kl.value
        assert peak is not None
        assert peak.estimate == pytest.approx(float(law.peak(TRUTHS[curve.method])), rel=0.15)
        assert curve.gold_band is not None
        highest = curve.gold_band.x[np.argmax(curve.gold_band.estimate)]
        assert highest == pytest.approx(peak.estimate, abs=2 * np.diff(curve.gold_band.x)[0])
    assert dpo.proxy is None and dpo.proxy_band is None and dpo.fit.peak_kl_nats.status == "refused"


def test_the_band_is_what_the_fit_predicts(data: OverOptimisation) -> None:
    curve = data.curves[1]
    assert curve.gold_band is not None and curve.fit.gold is not None
    told = curve.fit.gold.predict(curve.gold_band.x**2, scatter=False)
    assert curve.gold_band.low == pytest.approx(told.low) and curve.gold_band.high == pytest.approx(told.high)


@pytest.mark.parametrize("width", [COLUMN_INCHES, PAGE_INCHES])
def test_nothing_is_clipped_and_axes_are_named(data: OverOptimisation, width: float) -> None:
    figure = laid_out(figure_of.draw, data, width)
    with settings(width):
        assert clipped(figure) == []
    assert figure.get_supylabel() == "reward" and "nats" in figure.get_supxlabel()
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(TRUTHS)


def test_interactive_plots_draw_the_same_points(data: OverOptimisation) -> None:
    plots = over_optimisation_plots(data)
    assert list(plots) == list(TRUTHS)
    gold = [t for t in plots["PPO"].data if t.mode == "markers" and t.name == "gold"]
    assert sum(len(trace.x) for trace in gold) == len(data.curves[1].gold)
    assert any(trace.name == "highest gold reward" for trace in plots["PPO"].data)
    assert not any(trace.name == "highest gold reward" for trace in plots["DPO"].data)


def test_a_method_with_too_few_points_is_shown_without_a_law() -> None:
    few = table().query("method == 'PPO'").groupby("seed").head(2)
    data = over_optimisation(few, bootstrap=50)
    assert data.curves[0].gold_band is None
    figure = laid_out(figure_of.draw, data, COLUMN_INCHES)
    with settings(COLUMN_INCHES):
        assert clipped(figure) == []


def test_a_missing_column_is_one_line() -> None:
    with pytest.raises(UserError, match="has no column 'method'"):
        over_optimisation(table().drop(columns="method"))
    with pytest.raises(UserError, match="has no rows"):
        over_optimisation(table().head(0))
