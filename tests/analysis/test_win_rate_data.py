"""The figure of win rates beside length: the statistics' own numbers, drawn at both widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from analysis.figures import win_rates as figure_of
from analysis.figures.gallery import laid_out
from analysis.plotly_win_rates import lengths_plot, rates_plot
from analysis.style import COLUMN_INCHES, PAGE_INCHES, settings
from analysis.win_rate_data import WinRates, win_rates
from scaling.errors import UserError
from scaling.preference.win_rate import LengthControlledWinRate, length_controlled_win_rate

from .test_figures import clipped


def told(seed: int, longer: float, level: float = 0.9) -> LengthControlledWinRate:
    rng = np.random.default_rng(seed)
    base = rng.lognormal(4, 0.4, 200)
    length = base * rng.lognormal(longer, 0.4, 200)
    return length_controlled_win_rate(
        (rng.random(200) < expit(2 * np.tanh((length - base) / 40))).astype(float),
        length,
        base,
        bootstrap=60,
        level=level,
    )


@pytest.fixture(scope="module")
def data() -> WinRates:
    models = {
        "SFT": told(0, 0.0),
        "a name that is far too long for a row of any figure": told(1, 0.8),
        "PPO": told(2, 0.3),
    }
    return win_rates(models, baseline="base")


def test_rows_run_from_the_best_controlled_rate_down(data: WinRates) -> None:
    rates = [row.controlled.estimate for row in data.rows]
    assert rates == sorted(rates, reverse=True)
    longest = max(data.rows, key=lambda row: row.mean_length)
    assert longest.raw.estimate > longest.controlled.estimate + 0.05


@pytest.mark.parametrize("width", [COLUMN_INCHES, PAGE_INCHES])
def test_nothing_is_clipped_and_axes_are_named(data: WinRates, width: float) -> None:
    figure = laid_out(figure_of.draw, data, width)
    with settings(width):
        assert clipped(figure) == []
    assert [axes.get_xlabel() for axes in figure.axes] == ["preferred to base", "mean tokens"]


def test_interactive_plots_have_every_row(data: WinRates) -> None:
    raw, controlled = rates_plot(data).data
    assert list(controlled.x) == [row.controlled.estimate for row in data.rows]
    assert list(raw.x) == [row.raw.estimate for row in data.rows]
    assert list(lengths_plot(data).data[0].x) == [row.mean_length for row in data.rows]


def test_levels_that_differ_and_nothing_at_all_are_one_line() -> None:
    with pytest.raises(UserError, match="no win rate was given"):
        win_rates({}, baseline="base")
    with pytest.raises(UserError, match=r"levels 0.8, 0.9"):
        win_rates({"a": told(0, 0.1), "b": told(1, 0.1, level=0.8)}, baseline="base")
