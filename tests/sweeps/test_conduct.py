"""A whole study on a tiny text: every stage once, nothing twice, and a changed study refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from analysis.recommendation_yaml import recommendation_yaml
from scaling.cli.publishing import trained_runs
from scaling.errors import UserError
from scaling.forecast import Forecast
from scaling.hyperparameters import fixed_rate
from scaling.run_spec import RunSpec
from sweeps.conduct import Conductor, StudyResult
from sweeps.ledger.find_run import find_in_ledger
from sweeps.study import Study
from sweeps.workspace import Workspace
from trainer.loop.result import RunResult
from trainer.loop.state import weights_hash
from trainer.run_file import RunFile
from trainer.system_facts import system_facts

from .conftest import Silent
from .studies import small_study


@pytest.fixture(scope="module")
def module_study(tiny_text: Path) -> Study:
    question = {"gpus": 8, "days": 1, "accelerator": "h100"}
    return small_study(tiny_text, question=question, track={"mlflow": None})


@pytest.fixture(scope="module")
def conducted(module_study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Conductor, StudyResult]:
    conductor = Conductor(module_study, Workspace(tmp_path_factory.mktemp("workspace")), Silent())
    return conductor, conductor.result(conductor.plan())


def test_a_study_ends_with_fit_scored_forecast_and_a_run_that_can_be_launched(
    conducted: tuple[Conductor, StudyResult],
) -> None:
    conductor, result = conducted
    assert len(result.observations) == 12 + 2
    assert result.fit.observations.used == 12
    assert result.forecast is not None
    assert result.outcome is not None
    held_out = result.observations[result.observations["role"] == "hold-out"]
    assert held_out["flops_exact"].min() >= 4 * result.plan.sweep[-1].point.flops
    assert result.outcome.loss == pytest.approx(held_out["loss_nats"].mean())
    run = result.recommendation.run
    assert run is not None
    assert RunSpec.model_validate(run.model_dump(mode="json")).key == run.key
    for name in ("plan.json", "study.yaml", "fit.json", "forecast.json", "outcome.json", "observations.csv"):
        assert (conductor.folder / name).is_file(), name


@pytest.mark.slow
def test_a_study_of_curves_trains_one_trunk_a_size_and_its_branches_cost_their_cooldown(
    module_study: Study, tmp_path: Path, silent: Any
) -> None:
    settings = module_study.model_dump(mode="json") | {
        "name": "curves",
        "budget": {"flops": 9e10},
        "design": {"kind": "curves", "sizes": 3, "size_step": 2, "points": 4, "tokens_per_param": [1, 8]},
    }
    conductor = Conductor(Study.model_validate(settings), Workspace(tmp_path), silent)
    plan = conductor.plan()
    result = conductor.result(plan)
    rows = {row.key: row for row in conductor.ledger.runs("curves", "sweep")}
    assert {row.state for row in rows.values()} == {"finished"} and len(rows) == 12
    branches = [row for row in rows.values() if row.carrier]
    assert len(branches) == 9
    trained = 0.0
    for row in rows.values():
        assert row.result is not None
        started = row.spec.branch_step if row.carrier else 0
        assert row.result["first_step"] == started
        trained += row.flops * (1 - started / row.spec.steps)
    assert trained == pytest.approx(plan.sweep_flops, rel=0.02)
    assert {row.spec.trunk_key for row in branches} == {rows[row.carrier].spec.trunk_key for row in branches}
    assert result.observations["trunk_key"].nunique() == 3 + 2
    assert result.fit.observations.used == 12


@pytest.mark.slow
def test_a_study_in_rounds_lays_each_out_by_those_before_and_is_the_same_when_started_again(
    module_study: Study, tmp_path: Path, silent: Any
) -> None:
    settings = module_study.model_dump(mode="json") | {
        "name": "rounds",
        "budget": {"flops": 1.2e11},
        "design": {"kind": "information", "rounds": 2, "most_runs": 14, "smallest_share": 1e-2, "fewest_steps": 50},
    }
    conductor = Conductor(Study.model_validate(settings), Workspace(tmp_path), silent)
    plan = conductor.plan()
    assert plan.rounds == 1 and plan.sweep_flops <= 0.6e11
    result = conductor.result(plan)
    grown = result.plan
    assert grown.rounds == 2 and grown.sweep_flops <= 1.2e11
    assert grown.sweep[: len(plan.sweep)] == plan.sweep
    assert len(grown.sweep) > len(plan.sweep)
    assert grown.hold_out.point.flops >= 4 * max(planned.point.flops for planned in grown.sweep)
    rows = conductor.ledger.runs("rounds", "sweep")
    assert {row.state for row in rows} == {"finished"} and len(rows) == len(grown.sweep)
    assert result.fit.observations.used == len(grown.sweep)
    again = Conductor(Study.model_validate(settings), Workspace(tmp_path), silent)
    assert again.plan() == grown
    assert again.result(grown).fit.key == result.fit.key


def test_the_cure_of_a_fit_is_added_to_the_plan_once_and_leaves_its_runs_as_they_are(
    conducted: tuple[Conductor, StudyResult], module_study: Study, tmp_path: Path, silent: Any
) -> None:
    fit = conducted[1].fit
    conductor = Conductor(module_study, Workspace(tmp_path), silent)
    plan = conductor.plan()
    grown = conductor.cure(plan, fit)
    added = grown.sweep[len(plan.sweep) :]
    assert added and grown.sweep[: len(plan.sweep)] == plan.sweep
    law = fixed_rate(0.01)
    keys = [run.spec.key for run in conductor.sweep_runs(grown, law)]
    assert len(set(keys)) == len(keys)
    assert keys[: len(plan.sweep)] == [run.spec.key for run in conductor.sweep_runs(plan, law)]
    assert Conductor(module_study, Workspace(tmp_path), silent).plan() == grown
    assert conductor.cure(grown, fit) == grown
    assert "are in the plan already" in silent.said[-1]
    with pytest.raises(UserError, match="budget"):
        conductor.cure(plan, fit, budget_flops=1e3)


def test_a_studys_run_is_found_by_key_or_label_and_can_be_used(conducted: tuple[Conductor, StudyResult]) -> None:
    conductor, _ = conducted
    for row in conductor.ledger.runs("tiny", "hold-out"):
        (found,) = find_in_ledger(row.key[:12], conductor.workspace).values()
        assert row.key in find_in_ledger(row.label, conductor.workspace)
        assert found.spec == row.spec and row.result is not None
        assert weights_hash(found.model(note=pytest.fail)) == row.result["weights_hash"]
        assert found.tokenizer.get_vocab_size() == 300
    assert find_in_ledger("nobody", conductor.workspace) == {}


def test_a_recommendations_file_is_the_run_that_it_recommends(
    conducted: tuple[Conductor, StudyResult], tmp_path: Path
) -> None:
    recommendation = conducted[1].recommendation
    (tmp_path / "large.yaml").write_text(recommendation_yaml(recommendation), encoding="utf-8")
    assert RunFile(tmp_path / "large.yaml").exact == recommendation.run


def test_the_forecast_was_registered_before_its_runs_started(conducted: tuple[Conductor, StudyResult]) -> None:
    conductor, result = conducted
    (row,) = conductor.ledger.forecasts("tiny")
    assert Forecast.model_validate(row.forecast) == result.forecast
    for run in conductor.ledger.runs("tiny", "hold-out"):
        assert run.started_at is not None
        assert row.registered_at < run.started_at
    assert conductor.ledger.broken_links() == []


def test_every_run_says_what_it_took_of_the_calibrated_peak_and_what_it_ran_on(
    conducted: tuple[Conductor, StudyResult],
) -> None:
    conductor, here = conducted[0], system_facts()
    runs = conductor.ledger.runs(conductor.study.name)
    for result in [RunResult.model_validate(run.result) for run in runs]:
        assert result.mfu is not None
        assert 0 < result.mfu < 1.5
        assert result.system is not None
        assert (result.system.processor, result.system.installed) == (here.processor, here.installed)
    names = {point.name for point in conductor.ledger.points(runs[0].key)}
    assert {"bits_per_byte", "mfu", "tokens_per_second"} <= names


def test_the_figure_of_time_knows_when_each_run_was_trained_and_what_the_plan_expected(
    conducted: tuple[Conductor, StudyResult],
) -> None:
    conductor, result = conducted
    told = {run.run_key: run for run in trained_runs(conductor, result.plan)}
    rows = {row.key: row for row in conductor.ledger.runs(conductor.study.name)}
    assert told.keys() == rows.keys()
    for key, run in told.items():
        assert run.started_at < run.ended_at <= time.time()
        assert run.trained_seconds == rows[key].result["wall_seconds"]  # type: ignore[index]
    expected = sorted(run.expected_seconds for run in told.values() if run.stage == "sweep")  # type: ignore[type-var]
    assert expected == pytest.approx(sorted(planned.seconds for planned in result.plan.sweep), rel=0.02)


def test_conducting_again_trains_nothing_and_says_the_same(conducted: tuple[Conductor, StudyResult]) -> None:
    conductor, result = conducted
    before = {row.key: (row.result, row.ended_at) for row in conductor.ledger.runs("tiny")}
    again = Conductor(conductor.study, conductor.workspace, Silent())
    repeated = again.result(again.plan())
    assert {row.key: (row.result, row.ended_at) for row in again.ledger.runs("tiny")} == before
    assert repeated.fit.key == result.fit.key
    assert repeated.forecast == result.forecast
    assert repeated.outcome == result.outcome
    json.dumps(repeated.summary(), allow_nan=False)


def test_the_same_name_with_other_settings_is_refused_with_the_difference(
    conducted: tuple[Conductor, StudyResult],
) -> None:
    conductor, _ = conducted
    changed = conductor.study.model_copy(update={"seed": 5})
    with pytest.raises(UserError, match="seed: 0 -> 5"):
        Conductor(changed, conductor.workspace, Silent()).plan()


def test_where_it_runs_and_is_tracked_may_change(conducted: tuple[Conductor, StudyResult]) -> None:
    conductor, result = conducted
    moved = conductor.study.model_copy(
        update={"execute": conductor.study.execute.model_copy(update={"workers": 1})}
    )  # fmt: skip
    assert Conductor(moved, conductor.workspace, Silent()).plan() == result.plan


def test_another_study_of_the_workspace_reuses_the_runs_it_shares(conducted: tuple[Conductor, StudyResult]) -> None:
    conductor, _ = conducted
    twin = Conductor(conductor.study.model_copy(update={"name": "twin"}), conductor.workspace, Silent())
    plan = twin.plan()
    trained_at = {row.key: row.ended_at for row in conductor.ledger.runs("tiny", "sweep")}
    twin.sweep(plan)
    assert {row.key: row.ended_at for row in twin.ledger.runs("twin", "sweep")} == trained_at


def test_a_budget_in_minutes_makes_a_design_that_fits_into_them(module_study: Study, tmp_path: Path) -> None:
    study = module_study.model_copy(
        update={"name": "clock", "budget": module_study.budget.model_validate({"minutes": 0.5})}
    )  # fmt: skip
    conductor = Conductor(study, Workspace(tmp_path), Silent())
    conductor.workers = 2
    plan = conductor.plan()
    seconds = sum(planned.seconds for planned in plan.sweep) / 2
    assert 12 < seconds <= 30
