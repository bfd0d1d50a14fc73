"""A study's large run: registered before it starts, told to the ledger while it goes, scored at its end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scaling.errors import UserError
from sweeps.final_run import FollowedRun, register, score_folder
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.registry import registry
from sweeps.standing import standing
from trainer.run_folder import RunFolder

from .large import Large
from .projected import STUDY


def test_it_is_registered_followed_through_an_interruption_and_scored(large: Large, tmp_path: Path) -> None:
    said: list[str] = []
    first = FollowedRun(large.workspace, large.made, said.append)
    first.starting(large.run.key, tmp_path / "run")
    assert len(said) == 1 and said[0].startswith("registered the forecast")
    assert large.ledger.runs(STUDY, "final")[0].state == "running"
    other = FollowedRun(large.workspace, large.made, said.append)
    with pytest.raises(UserError, match="is being trained by process"):
        other.starting(large.run.key, tmp_path / "run")
    assert first.ended(large.trained(tmp_path / "run", first, stop_at=20)) is None
    assert large.ledger.runs(STUDY, "final")[0].state == "planned"

    again = FollowedRun(large.workspace, large.made, said.append)
    again.starting(large.run.key, tmp_path / "run")
    scored = again.ended(large.trained(tmp_path / "run", again))
    assert scored is not None and scored.study == STUDY
    row = large.ledger.runs(STUDY, "final")[0]
    assert (row.state, row.loss) == ("finished", scored.outcome.loss)
    assert {point.name for point in large.ledger.points(row.key)} >= {"train_loss", "held_out_loss"}
    found = registry(large.ledger, large.workspace.forecasts)
    assert [each.problems for each in found.forecasts] == [()]
    assert found.forecasts[0].outcome == scored.outcome
    assert len(said) == 1, "registered once"


def test_a_run_that_has_started_can_no_longer_be_forecast(large: Large, tmp_path: Path) -> None:
    register(large.ledger, large.workspace, large.made)
    followed = FollowedRun(large.workspace, large.made, print)
    followed.starting(large.run.key, tmp_path / "run")
    later = large.made.forecast.model_copy(update={"fit_key": "0" * 64}) if large.made.forecast else None
    assert later is not None
    with pytest.raises(RuntimeError, match="started before"):
        large.ledger.register(STUDY, later, [large.run.key])
    assert register(large.ledger, large.workspace, large.made) == large.ledger.forecasts()[0].hash
    followed.ended(large.trained(tmp_path / "run", followed, stop_at=1))


@pytest.mark.parametrize(("gone", "said"), [("run", "no run"), ("forecast", "no forecast"), ("study", "no study")])
def test_what_is_missing_is_named(large: Large, gone: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        register(large.ledger, large.workspace, large.made.model_copy(update={gone: None}))


def test_a_run_trained_elsewhere_is_taken_over_with_its_curve(large: Large, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    with pytest.raises(UserError, match="holds no finished run"):
        score_folder(large.workspace, RunFolder(folder))
    elsewhere = FollowedRun(type(large.workspace)(tmp_path / "other"), large.made, print)
    elsewhere.starting(large.run.key, folder)
    result = large.trained(folder, elsewhere)
    assert elsewhere.ended(result) is None
    with pytest.raises(UserError, match="no forecast of run"):
        score_folder(large.workspace, RunFolder(folder))
    register(large.ledger, large.workspace, large.made)
    copied = Path(shutil.copytree(folder, tmp_path / "copied"))
    scored = score_folder(large.workspace, RunFolder(copied))
    assert scored.outcome.loss == result.loss_nats
    row = large.ledger.runs(STUDY, "final")[0]
    assert (row.state, row.started_at) == ("finished", 2e9)
    assert len(large.ledger.points(row.key)) == len(RunFolder(copied).curve().points())
    assert score_folder(large.workspace, RunFolder(copied)) == scored
    assert large.workspace.run_folder(large.run.key).resolve() == copied


def test_one_that_began_before_its_forecast_is_marked(large: Large, tmp_path: Path) -> None:
    result = large.trained(tmp_path / "run", FollowedRun(large.workspace, None, print))
    register(large.ledger, large.workspace, large.made)
    folder = RunFolder(tmp_path / "run")
    record = folder.record()
    assert record is not None and result.status == "finished"
    (folder.path / "run.json").write_text(record.model_copy(update={"begun_at": 1.0}).model_dump_json())
    score_folder(large.workspace, folder)
    (problem,) = registry(large.ledger, large.workspace.forecasts).forecasts[0].problems
    assert "had started before" in problem


def test_a_workspace_without_a_ledger_gets_none(tmp_path: Path) -> None:
    from sweeps.workspace import Workspace

    space = Workspace(tmp_path / "plain")
    followed = FollowedRun(space, None, print)
    followed.starting("a" * 64, tmp_path / "run")
    assert not followed.called_off
    assert list(space.root.iterdir()) == []


def test_ledger_claims_a_run_whose_process_is_gone(large: Large) -> None:
    from sweeps.ledger.owner import Owner

    register(large.ledger, large.workspace, large.made)
    me = Owner.me()
    assert large.ledger.claim(large.run.key, me._replace(pid=2**22 - 1, started=1.0))
    assert large.ledger.claim(large.run.key, me)
    assert not large.ledger.claim(large.run.key, me)
    assert isinstance(large.ledger, Ledger)


def test_a_registered_run_that_nobody_trains_holds_nothing_up(large: Large, tmp_path: Path) -> None:
    """It would be most of the compute, and `scaling run` never trains it."""
    before = standing(large.ledger, large.workspace, STUDY)
    register(large.ledger, large.workspace, large.made)
    now = standing(large.ledger, large.workspace, STUDY)
    assert [row.key for row in now.waiting] == [large.run.key]
    assert (now.share, now.seconds_left, now.ended) == (before.share, before.seconds_left, before.ended)
    followed = FollowedRun(large.workspace, large.made, print)
    followed.starting(large.run.key, tmp_path / "run")
    now = standing(large.ledger, large.workspace, STUDY)
    assert (now.waiting, [row.key for row in now.running]) == ([], [large.run.key])
    assert now.flops > before.flops
