"""MLflow shows what the ledger holds: the same runs after an interruption, each point once, each status right."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sweeps.ledger.control import cancel, retry
from sweeps.ledger.ledger import MAX_FAILURES
from sweeps.tracking import projection
from sweeps.tracking.run_facts import record_facts
from sweeps.tracking.sent import forget
from sweeps.tracking.thread import ProjectionThread

from ..ledger.test_ledger import forecast
from ..projected import FACTS, RESULT, STUDY, Projected

# MLflow 3.17's own use of SQLAlchemy 2.1, and nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


def test_an_interrupted_run_goes_on_in_the_same_mlflow_run_with_each_point_once(
    projected: Projected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "POINTS_PER_BATCH", 7)  # batches that end in the middle of a step
    first = projected.projection()
    key = projected.lease()
    projected.points(key, range(1, 21))
    first.sync()
    assert projected.children()[key].info.status == "RUNNING"
    projected.ledger.release(key, projected.owner)
    first.sync()
    first.end("KILLED")
    before = projected.children()[key]
    assert before.info.status == "KILLED"

    second = projected.projection()
    assert second.parent_run_id == first.parent_run_id
    assert projected.lease() == key
    projected.points(key, range(15, 41))  # measured again from the checkpoint on
    projected.ledger.finish(key, projected.owner, "finished", RESULT)
    second.sync()
    second.sync()
    second.end("FINISHED")
    after = projected.children()[key]
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    for name in ("train_loss", "held_out_loss", "tokens", "flops"):
        history = projected.client.get_metric_history(after.info.run_id, name)
        assert sorted(metric.step for metric in history) == list(range(1, 41)), name
    assert [m.value for m in projected.client.get_metric_history(after.info.run_id, "tokens") if m.step == 40] == [5120]
    assert after.data.metrics["final_loss_nats"] == 3.2
    assert after.data.metrics["final_mfu"] == 0.25
    assert after.data.metrics["final_loss_nats/plays _old_"] == 3.5
    assert not {"final_energy_joules", "final_loss_sem/plays _old_"} & after.data.metrics.keys()
    tags = {name: after.data.tags.get(name) for name in ("scaling.torch", "scaling.git_dirty", "scaling.gpu")}
    assert tags == {"scaling.torch": "2.13.0", "scaling.git_dirty": "False", "scaling.gpu": None}
    assert after.data.tags["mlflow.source.git.commit"] == "abc"
    assert projected.client.get_run(first.parent_run_id).info.status == "FINISHED"


def test_states_are_those_of_the_ledger_and_all_lie_under_the_study(projected: Projected) -> None:
    projection = projected.projection()
    ended: dict[str, str] = {}
    for status in ("FAILED", "KILLED", "FINISHED"):
        key = projected.lease()
        ended[key] = status
        if status == "KILLED":
            cancel(projected.ledger, STUDY, [key])
        elif status == "FINISHED":
            projected.ledger.finish(key, projected.owner, "finished", RESULT)
        else:
            projected.ledger.finish(key, projected.owner, "diverged", {"status": "diverged", "steps": 7})
    projection.sync()
    children = projected.children()
    assert {key: run.info.status for key, run in children.items()} == ended
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {projection.parent_run_id}


def test_a_run_that_failed_for_good_says_why_and_what_it_ran_on_with_seed_and_data(projected: Projected) -> None:
    key = projected.lease()
    record_facts(projected.ledger, [key], FACTS)
    for _ in range(MAX_FAILURES):
        projected.ledger.fail(key, projected.owner, "poison", "run")
        while (leased := projected.ledger.lease(STUDY, "sweep", projected.owner)) and leased.key != key:
            pass
    projected.projection().sync()
    run = projected.children()[key]
    assert run.info.status == "FAILED"
    expected = {"scaling.error": "poison", "mlflow.source.git.commit": "abc", "scaling.installed": "def"}
    assert expected.items() <= run.data.tags.items()
    assert run.data.params["data_key"] == projected.plan.corpus.data_key
    assert run.data.params["seed"].isdigit()
    retry(projected.ledger, STUDY, [key])
    projected.projection().sync()
    again = projected.children()[key]
    assert again.info.status == "KILLED"
    assert "scaling.error" not in again.data.tags


def test_a_branch_lies_under_its_trunk_and_both_are_found_by_the_key_of_what_they_share(projected: Projected) -> None:
    projected.train_all()
    projected.projection().sync()
    children = projected.children()
    trunk, branch = children[projected.trunk], children[projected.branch]
    assert branch.data.tags["mlflow.parentRunId"] == trunk.info.run_id
    assert (trunk.data.tags["scaling.kind"], branch.data.tags["scaling.kind"]) == ("trunk", "branch")
    specs = {row.key: row.spec for row in projected.ledger.runs(STUDY)}
    assert {key: run.data.tags["scaling.trunk_key"] for key, run in children.items()} == {
        key: specs[key].trunk_key for key in children
    }


def test_files_lie_in_the_workspace_and_not_where_the_command_was_started(projected: Projected) -> None:
    projection = projected.projection()
    artifacts = projected.client.get_run(projection.parent_run_id).info.artifact_uri
    assert artifacts.startswith((projected.workspace.root / "mlartifacts").as_uri())


def test_another_store_is_built_from_the_ledger_like_the_first_and_doing_it_twice_changes_nothing(
    projected: Projected,
) -> None:
    projected.train_all()
    first = projected.projection()
    first.sync()
    first.end("FINISHED")
    before = projected.shown()
    assert len(before) == 5
    projected.uri = projected.workspace.tracking_uri("sqlite:///other.db")
    for _ in range(2):
        again = projected.projection()
        again.sync(anew=True)
        again.end("FINISHED")
        assert projected.shown() == before


def test_a_run_that_somebody_deleted_is_sent_again(projected: Projected) -> None:
    projected.train_all()
    projected.projection().sync()
    before = projected.shown()
    projected.client.delete_run(projected.children()[projected.branch].info.run_id)
    projected.projection().sync()
    assert projected.shown() == before


def test_a_plan_that_has_grown_finds_the_runs_that_another_process_made_unheard(projected: Projected) -> None:
    projected.train_all()
    projected.projection().sync()
    before = projected.shown()
    forget(projected.ledger, projected.uri, STUDY, [run.info.run_id for run in projected.runs()])
    plan = projected.plan
    projected.plan = plan.model_copy(update={"sweep": (*plan.sweep, plan.hold_out), "rounds": plan.rounds + 1})
    projected.projection().sync()
    assert projected.shown().keys() == before.keys(), "none was made a second time"


def test_a_run_that_was_forecast_shows_what_was_said_of_it_before_it_began(projected: Projected) -> None:
    said = forecast(3.1)
    link = projected.ledger.register(STUDY, said, [projected.trunk])
    projected.train_all()
    projected.projection().sync()
    children = projected.children()
    shown = children[projected.trunk].data
    assert shown.tags["scaling.forecast"] == link
    bounds = (shown.metrics[f"forecast_loss{end}"] for end in ("_low", "", "_high"))
    assert list(bounds) == [said.loss.low, said.loss.estimate, said.loss.high]
    history = projected.client.get_metric_history(children[projected.trunk].info.run_id, "forecast_loss")
    assert history[0].timestamp < children[projected.trunk].info.start_time
    assert "scaling.forecast" not in children[projected.branch].data.tags


CHANGES = ("create_experiment", "create_run", "log_batch", "set_terminated", "update_run")


@pytest.mark.slow
@pytest.mark.parametrize("done", [True, False], ids=["the answer is lost", "the request is lost"])
def test_whichever_request_is_lost_everything_is_sent_once(
    projected: Projected, tmp_path: Path, frozen: Any, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    """The n-th request fails, for each n: MLflow ends as without faults."""
    projected.train_all()
    projected.projection().sync()
    control = projected.shown()
    seen = _requests(monkeypatch, lambda _: False)
    reference = Projected(*frozen, tmp_path / "reference")
    _like(reference, projected)
    reference.projection().sync()
    total, seen[0] = seen[0], 0
    assert total > 15
    for n in range(1, total + 1, 2):
        monkeypatch.undo()
        faulted = Projected(*frozen, tmp_path / f"{n}")
        _like(faulted, projected)
        seen = _requests(monkeypatch, lambda at, n=n: at == n, done=done)
        for _ in range(2):
            try:
                faulted.projection().sync()
            except ConnectionError:
                continue
            break
        assert seen[0] >= n, "the fault must really have happened"
        assert faulted.shown() == control, n


def _requests(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool], *, done: bool = False) -> list[int]:
    """Counts the requests that change the store; those that ``fails`` picks raise, after being ``done`` or not."""
    seen = [0]

    def faulty(name: str) -> Callable[..., Any]:
        real = getattr(MlflowClient, name)

        def request(client: MlflowClient, *arguments: Any, **keywords: Any) -> Any:
            seen[0] += 1
            if not fails(seen[0]):
                return real(client, *arguments, **keywords)
            if done:
                real(client, *arguments, **keywords)
            raise ConnectionError(f"request {seen[0]}, {name}")

        return request

    for name in CHANGES:
        monkeypatch.setattr(MlflowClient, name, faulty(name))
    return seen


def _like(copy: Projected, original: Projected) -> None:
    """Give ``copy`` the very ledger of ``original``, with nothing sent."""
    copy.ledger.close()
    source, target = (sqlite3.connect(each.workspace.root / "ledger.db") for each in (original, copy))
    source.backup(target)
    target.execute("DELETE FROM mlflow_runs")
    target.commit()
    source.close()
    target.close()


def test_a_store_that_cannot_be_opened_stops_nothing_and_is_reported(projected: Projected, tmp_path: Path) -> None:
    unreachable = f"sqlite:///{tmp_path}"  # a folder, which no database can be
    thread = ProjectionThread(projected.ledger.url, unreachable, None, STUDY, projected.plan, every_seconds=0.1)
    assert thread.finish(timeout=1) is None
    assert thread.fault is not None


def test_runs_that_an_earlier_version_sent_get_what_they_lack_once(
    projected: Projected, monkeypatch: pytest.MonkeyPatch
) -> None:
    projected.train_all()
    projected.projection().sync()
    whole = projected.shown()
    client, run = projected.client, projected.children()[projected.trunk]
    parent = run.data.tags["mlflow.parentRunId"]
    client.set_tag(parent, "scaling.layout", "1")
    client.delete_tag(run.info.run_id, "scaling.family")
    again = projected.projection()
    again.sync()
    again.end("RUNNING")
    assert projected.shown() == whole
    sent: list[str] = []
    monkeypatch.setattr(MlflowClient, "log_batch", lambda client, run_id, **batch: sent.append(run_id))
    projected.projection().sync()
    assert not sent, "the next start sends nothing again"
