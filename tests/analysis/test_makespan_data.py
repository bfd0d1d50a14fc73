"""Expected and real time: runs lie in lanes without meeting, breaks are cut, and each run's time is its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.figures.makespan import seconds_label, time_ticks
from analysis.makespan_data import Makespan, makespan
from analysis.study_view import StudyView, TrainedRun

from .conftest import NIGHT


@pytest.fixture(scope="module")
def data(view: StudyView) -> Makespan:
    made = makespan(view)
    assert made is not None
    return made


def _run(key: str, start: float, end: float, stage: str = "sweep", state: str = "finished") -> TrainedRun:
    return TrainedRun(key, key, stage, state, start, end, expected_seconds=1.0)


def test_two_workers_need_two_lanes(data: Makespan, view: StudyView) -> None:
    assert data.lanes == 2
    assert len(data.bars) == len(view.trained)


def test_each_run_and_stage_took_a_quarter_longer_than_the_plan_said(data: Makespan) -> None:
    assert data.real == pytest.approx(1.25 * data.expected)
    assert [stage.name for stage in data.stages] == ["sweep", "hold-out"]
    for stage in data.stages:
        assert stage.real == pytest.approx(1.25 * stage.expected, rel=1e-6)


def test_a_night_is_cut_short_and_marked(data: Makespan, view: StudyView) -> None:
    assert len(data.breaks) == 1
    whole = max(run.ended_at for run in view.trained) - min(run.started_at for run in view.trained)
    assert data.end < whole - 0.95 * NIGHT
    sweep, hold_out = data.stages
    assert sweep.start + sweep.real < data.breaks[0] < hold_out.start


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60)), min_size=1, max_size=40))
def test_no_two_runs_of_a_lane_overlap_and_no_lane_too_many(times: list[tuple[int, int]]) -> None:
    runs = tuple(_run(str(index), start, start + took) for index, (start, took) in enumerate(times))
    view = _bare(runs)
    data = makespan(view)
    assert data is not None
    for lane in range(data.lanes):
        mine = sorted((bar for bar in data.bars if bar.lane == lane), key=lambda bar: (bar.start, bar.end))
        assert all(before.end <= after.start + 1e-9 for before, after in pairwise(mine))
    moments = [run.started_at for run in runs]
    most = max(sum(run.started_at <= now < run.ended_at or run.started_at == now for run in runs) for now in moments)
    assert data.lanes <= most


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.001, 1e5)), min_size=1, max_size=20))
def test_a_runs_bar_is_as_long_as_the_run(times: list[tuple[float, float]]) -> None:
    data = makespan(_bare(tuple(_run(str(index), start, start + took) for index, (start, took) in enumerate(times))))
    assert data is not None
    for bar in data.bars:
        assert bar.end - bar.start == pytest.approx(bar.run.ended_at - bar.run.started_at, abs=1e-3)


def _bare(runs: tuple[TrainedRun, ...]) -> StudyView:
    """A view of which nothing is looked at but the times."""
    view = object.__new__(StudyView)
    object.__setattr__(view, "trained", runs)
    object.__setattr__(view, "expected_stage_seconds", {})
    return view


def test_an_interruption_is_not_training_and_a_trunk_not_its_branchs_time(make_view: Callable[..., StudyView]) -> None:
    interrupted = dataclasses.replace(_run("a", 0, 1000), trained_seconds=40.0)
    branch = dataclasses.replace(_run("b", 1000, 1010), trained_seconds=300.0)
    data = makespan(make_view(trained=(interrupted, branch)))
    assert data is not None
    assert list(data.real) == [40.0, 10.0]


def test_a_run_of_two_stages_was_trained_for_the_first(make_view: Callable[..., StudyView]) -> None:
    data = makespan(make_view(trained=(_run("a", 0, 10, "sweep"), _run("a", 0, 10, "probe"))))
    assert data is not None
    assert [(bar.run.stage, bar.lane) for bar in data.bars] == [("probe", 0)]


def test_without_times_there_is_no_figure(make_view: Callable[..., StudyView]) -> None:
    assert makespan(make_view(trained=())) is None


def test_time_is_told_in_round_units() -> None:
    assert [seconds_label(value) for value in (0.5, 10, 60, 600, 3600, 86_400)] == [
        "0.5 s", "10 s", "1 min", "10 min", "1 h", "1 d",
    ]  # fmt: skip
    for low, high in ((0.2, 40.0), (1.0, 400.0), (5.0, 90_000.0), (100.0, 1e7)):
        ticks = time_ticks(low, high)
        assert 2 <= len(ticks) <= 5 and low <= ticks[0] and ticks[-1] <= high
