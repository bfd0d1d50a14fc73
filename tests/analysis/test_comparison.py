"""Recipes side by side: the figure shows what ``scaling.comparison`` says, at every compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.comparison_data import ArmComparison, arm_of, compare_arms, compare_views, runs_of_fit
from analysis.figures import comparison
from analysis.figures.gallery import laid_out
from analysis.plotly_comparison import arms_plot, multiplier_plot
from analysis.study_view import StudyView
from analysis.style import COLUMN_INCHES, PAGE_INCHES, settings
from scaling.cli.main import app
from scaling.comparison import compare
from scaling.errors import UserError
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA

from .conftest import NOISE, TRUTH, simulate
from .test_figures import clipped

GAIN = 1.6
"""The second recipe learns from every token as the first does from so many."""
TARGET = 5e13


def _study(name: str, gain: float, seed: int, tokenizer: str = "one", bytes_per_token: float = 4.3) -> StudyView:
    made = simulate(seed=seed)
    rows, noise = made.observations, np.random.default_rng(seed).standard_normal(len(made.observations))
    loss = CHINCHILLA.predict(TRUTH, rows["params_total"].to_numpy(np.float64), rows["tokens"].to_numpy() * gain)
    loss = loss * np.exp(NOISE * noise)
    rows = rows.assign(
        loss_nats=loss, bits_per_byte=loss / np.log(2) / bytes_per_token, tokenizer_key=tokenizer, study=name
    )
    fit = fit_table(rows, flops_convention="6nd", bootstrap=100)
    return StudyView(name=name, question="", observations=rows, curves=made.curves, fit=fit)


@pytest.fixture(scope="module")
def pair() -> tuple[StudyView, StudyView]:
    return _study("plain", 1.0, 1), _study("better", GAIN, 2)


@pytest.fixture(scope="module")
def data(pair: tuple[StudyView, StudyView]) -> ArmComparison:
    return compare_views(pair, TARGET)


def test_the_multiplier_of_a_recipe_that_saves_tokens_is_what_it_saves(data: ArmComparison) -> None:
    band = data.multipliers[0].band
    measured = band.x <= data.fitted_flops[1]
    assert band.estimate[measured] == pytest.approx(GAIN, rel=0.08)
    assert (band.low <= GAIN).mean() > 0.8 and (band.high >= GAIN).mean() > 0.8


def test_every_point_is_what_scaling_compare_says_there(pair: tuple[StudyView, StudyView], data: ArmComparison) -> None:
    told = compare(arm_of(pair[0]), arm_of(pair[1]), TARGET)
    assert data.multipliers[0].target == told
    assert data.multipliers[0].band.estimate[-1] == pytest.approx(told.compute_multiplier.estimate)
    assert data.arms[1].frontier.estimate[-1] == pytest.approx(told.loss_second.estimate)
    assert data.unit == "nats per token"


def test_the_first_study_is_the_measure_and_order_turns_the_multiplier_over(
    pair: tuple[StudyView, StudyView], data: ArmComparison
) -> None:
    turned = compare_views(pair[::-1], TARGET).multipliers[0].band
    assert 1 / turned.estimate[:8] == pytest.approx(data.multipliers[0].band.estimate[:8], rel=0.03)


def test_other_tokenizers_are_compared_in_bits_per_byte(pair: tuple[StudyView, StudyView]) -> None:
    other = _study("short tokens", 1.0, 3, "two", 2.15)
    data = compare_views([*pair, other], TARGET)
    assert data.unit == "bits per byte"
    for view, arm in zip((*pair, other), data.arms, strict=True):
        assert arm.runs.loss == pytest.approx(view.observations["bits_per_byte"].to_numpy())
        at_last = (arm.runs.flops > 0.95 * arm.fitted_flops[1]) & ~arm.runs.held_out
        at_end = np.interp(arm.fitted_flops[1], arm.frontier.x, arm.frontier.estimate)
        assert at_end == pytest.approx(arm.runs.loss[at_last].min(), rel=0.02)


def test_one_study_is_no_comparison(pair: tuple[StudyView, StudyView]) -> None:
    with pytest.raises(UserError, match="there is 1 study to compare"):
        compare_views(pair[:1])


def test_a_fit_alone_has_the_runs_it_fitted(pair: tuple[StudyView, StudyView]) -> None:
    runs = runs_of_fit(pair[0].fit)
    assert np.sort(runs.loss) == pytest.approx(np.sort(pair[0].fitted["loss_nats"]))
    assert runs.flops.max() == pytest.approx(pair[0].fit.fitted_range.flops[1])


@pytest.mark.parametrize("width", [COLUMN_INCHES, PAGE_INCHES])
def test_nothing_is_clipped_with_two_studies_or_five_of_long_names(
    pair: tuple[StudyView, StudyView], data: ArmComparison, width: float
) -> None:
    arms = [arm_of(pair[index % 2]) for index in range(5)]
    named = [type(arm)(f"{'a long name for a recipe ' * 2}{index} $x_1", arm.fit) for index, arm in enumerate(arms)]
    many = compare_arms(named, [runs_of_fit(arm.fit) for arm in named])
    for each in (data, many):
        figure = laid_out(comparison.draw, each, width)
        with settings(width):
            assert clipped(figure) == []


def test_plotly_draws_the_same_numbers(data: ArmComparison) -> None:
    arms, multiplier = arms_plot(data), multiplier_plot(data)
    drawn = [trace for trace in arms.data if trace.mode == "markers"]
    assert sum(len(trace.y) for trace in drawn) == sum(arm.runs.loss.size for arm in data.arms)
    lines = [trace for trace in multiplier.data if trace.mode == "lines" and trace.line.dash == "dash"]
    assert list(lines[0].y) == pytest.approx(list(data.multipliers[0].band.estimate))


def test_scaling_compare_draws_the_figure(pair: tuple[StudyView, StudyView], tmp_path: Path) -> None:
    places = []
    for view in pair:
        folder = tmp_path / view.name
        folder.mkdir()
        (folder / "fit.json").write_text(view.fit.model_dump_json())
        view.observations.to_csv(folder / "observations.csv", index=False)
        places.append(str(folder))
    drawn = tmp_path / "drawn"
    told = CliRunner().invoke(app, ["compare", *places, "--flops", "1e12", "--figures", str(drawn)])
    assert told.exit_code == 0, told.output
    assert sorted(path.name for path in drawn.iterdir()) == ["comparison.png", "comparison.svg"]
