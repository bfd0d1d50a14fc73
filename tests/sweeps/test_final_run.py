"""A study's large run: registered before it starts, told to the ledger while it goes, scored at its end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from scaling.errors import UserError
from scaling.forecast import Forecast
from scaling.recommendation import Recommendation
from scaling.record import Interval
from sweeps.final_run import FollowedRun, register, score_folder
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.registry import registry
from sweeps.planning.plan import run_spec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.train import train
from trainer.run_folder import RunFolder, RunRecord
from trainer.tracker import Trackers

from .projected import STUDY, Projected


class Large:
    """A recommended run of a second, in a workspace whose study has been planned."""

    def __init__(self, projected: Projected, text: Path, silent: Any) -> None:
        from sweeps.conduct import Conductor

        from .studies import small_study

        study = small_study(text)
        self.workspace, self.ledger = projected.workspace, projected.ledger
        conductor = Conductor(study, self.workspace, silent)
        corpora = conductor.workspace.corpora
        # The frozen plan came without its corpus.
        from trainer.data.prepare import prepare

        prepare(**study.corpus.model_dump(), into=corpora)
        self.corpus = Corpus(corpora / projected.plan.corpus.folder)
        self.run = run_spec(study, projected.plan, projected.plan.sweep[0].point.shape, 128 * 60, 0.01, 5)
        loss = Interval(estimate=5.0, low=4.0, high=6.0)
        one = Interval(estimate=1e4, low=None, high=None)
        self.made = Recommendation.model_construct(
            study=STUDY,
            stage="final",
            flops=1e9,
            run=self.run,
            run_key=self.run.key,
            forecast=Forecast(
                fit_key="f" * 64, flops=1e9, params=one, tokens=one, loss=loss, level=0.9, extrapolation_orders=1.0,
                params_convention="total", flops_convention="exact", assumptions=(),
            ),
        )  # fmt: skip

    def trained(self, folder: Path, tracker: Any, stop_at: int | None = None) -> RunResult:
        seen = 0

        def stop() -> bool:
            nonlocal seen
            seen += 1
            return stop_at is not None and seen > stop_at

        numerics = Numerics()
        record = RunRecord(spec=self.run, numerics=numerics, corpus=str(self.corpus.directory), begun_at=2e9)
        made = RunFolder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        made.begin(record, self.corpus)
        both = Trackers(made.curve(), tracker)
        result = train(self.run, self.corpus, numerics, directory=folder, tracker=both, should_stop=stop)
        both.flush()
        if result.status != "interrupted":
            made.end(result)
        return result


@pytest.fixture
def large(projected: Projected, tiny_text: Path, silent: Any) -> Large:
    return Large(projected, tiny_text, silent)


def test_it_is_registered_followed_through_an_interruption_and_scored(large: Large, tmp_path: Path) -> None:
    said: list[str] = []
    first = FollowedRun(large.workspace, large.made, said.append)
    first.starting(large.run.key)
    assert len(said) == 1 and said[0].startswith("registered the forecast")
    assert large.ledger.runs(STUDY, "final")[0].state == "running"
    other = FollowedRun(large.workspace, large.made, said.append)
    with pytest.raises(UserError, match="is being trained by process"):
        other.starting(large.run.key)
    assert first.ended(large.trained(tmp_path / "run", first, stop_at=20)) is None
    assert large.ledger.runs(STUDY, "final")[0].state == "planned"

    again = FollowedRun(large.workspace, large.made, said.append)
    again.starting(large.run.key)
    scored = again.ended(large.trained(tmp_path / "run", again))
    assert scored is not None and scored.study == STUDY
    row = large.ledger.runs(STUDY, "final")[0]
    assert (row.state, row.loss) == ("finished", scored.outcome.loss)
    assert {point.name for point in large.ledger.points(row.key)} >= {"train_loss", "held_out_loss"}
    found = registry(large.ledger, large.workspace.forecasts)
    assert [each.problems for each in found.forecasts] == [()]
    assert found.forecasts[0].outcome == scored.outcome
    assert len(said) == 1, "registered once"


def test_a_run_that_has_started_can_no_longer_be_forecast(large: Large) -> None:
    register(large.ledger, large.workspace, large.made)
    followed = FollowedRun(large.workspace, large.made, print)
    followed.starting(large.run.key)
    later = large.made.forecast.model_copy(update={"fit_key": "0" * 64}) if large.made.forecast else None
    assert later is not None
    with pytest.raises(RuntimeError, match="started before"):
        large.ledger.register(STUDY, later, [large.run.key])
    assert register(large.ledger, large.workspace, large.made) == large.ledger.forecasts()[0].hash


@pytest.mark.parametrize(("gone", "said"), [("run", "no run"), ("forecast", "no forecast"), ("study", "no study")])
def test_what_is_missing_is_named(large: Large, gone: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        register(large.ledger, large.workspace, large.made.model_copy(update={gone: None}))


def test_a_run_trained_elsewhere_is_taken_over_with_its_curve(large: Large, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    with pytest.raises(UserError, match="holds no finished run"):
        score_folder(large.workspace, RunFolder(folder))
    elsewhere = FollowedRun(type(large.workspace)(tmp_path / "other"), large.made, print)
    elsewhere.starting(large.run.key)
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
    followed.starting("a" * 64)
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
