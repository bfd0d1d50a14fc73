"""MLflow shows what the ledger holds: the same runs after an interruption, each point once, each status right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.conduct import Conductor
from sweeps.ledger import PlannedRun
from sweeps.mlflow_projection import MlflowProjection
from sweeps.mlflow_thread import ProjectionThread
from sweeps.owner import Owner
from sweeps.plan import Plan, run_spec
from sweeps.study import Study
from sweeps.workspace import Workspace

# MLflow 3.17's own use of SQLAlchemy 2.1, and nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

RESULT = {
    "status": "finished", "steps": 40, "loss_nats": 3.2, "loss_sem": 0.01, "bits_per_byte": 1.1, "wall_seconds": 2.0,
    "tokens_per_second": 1e4, "mfu": 0.25, "energy_joules": None,
    "domains": {"plays (old)": {"loss_nats": 3.5, "loss_sem": None, "bits_per_byte": 1.3, "tokens": 9, "works": 1}},
    "system": {"torch": "2.13.0", "git_commit": "abc", "git_dirty": False, "gpu": None},
}  # fmt: skip


class Projected:
    """A study whose runs are moved by hand, and its MLflow side."""

    def __init__(self, study: Study, root: Path, silent: Any) -> None:
        self.conductor = Conductor(study, Workspace(root), silent)
        self.plan: Plan = self.conductor.plan()
        self.uri = self.conductor.workspace.tracking_uri("sqlite:///mlflow.db")
        self.client = MlflowClient(tracking_uri=self.uri)
        self.owner = Owner.me()
        shape = self.plan.sweep[0].point.shape
        specs = [run_spec(study, self.plan, shape, 128 * 40, 0.01, seed) for seed in range(3)]
        self.ledger = self.conductor.ledger
        self.ledger.add("tiny", [PlannedRun(spec=s, stage="sweep", label=f"run {s.seed}") for s in specs])

    def projection(self) -> MlflowProjection:
        artifacts = self.conductor.workspace.artifacts_uri(self.uri)
        return MlflowProjection(self.ledger.url, self.uri, artifacts, "tiny", self.plan)

    def lease(self) -> str:
        spec = self.ledger.lease("tiny", "sweep", self.owner)
        assert spec is not None
        return spec.key

    def points(self, key: str, steps: range) -> None:
        points = [
            {"step": step, "tokens": 128 * step, "flops": 1e6 * step, "name": "train_loss", "value": 5 - step / 50}
            for step in steps
        ]
        self.ledger.add_points(key, points)

    def children(self) -> dict[str, Run]:
        experiment = self.client.get_experiment_by_name("scaling/tiny")
        assert experiment is not None
        runs = self.client.search_runs([experiment.experiment_id], max_results=100)
        return {run.data.tags["scaling.run_key"]: run for run in runs if "scaling.run_key" in run.data.tags}


@pytest.fixture
def projected(tiny_study: Study, tmp_path: Path, silent: Any) -> Projected:
    return Projected(tiny_study, tmp_path, silent)


def test_an_interrupted_run_goes_on_in_the_same_mlflow_run_with_each_point_once(projected: Projected) -> None:
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
    history = projected.client.get_metric_history(after.info.run_id, "train_loss")
    assert sorted(metric.step for metric in history) == list(range(1, 41))
    assert [m.value for m in projected.client.get_metric_history(after.info.run_id, "tokens") if m.step == 40] == [5120]
    assert after.data.metrics["final_loss_nats"] == 3.2
    assert after.data.metrics["final_mfu"] == 0.25
    assert after.data.metrics["final_loss_nats/plays _old_"] == 3.5
    assert not {"final_energy_joules", "final_loss_sem/plays _old_"} & after.data.metrics.keys()
    tags = {name: after.data.tags.get(name) for name in ("scaling.torch", "scaling.git_dirty", "scaling.gpu")}
    assert tags == {"scaling.torch": "2.13.0", "scaling.git_dirty": "False", "scaling.gpu": None}
    assert after.data.tags["mlflow.source.git.commit"] == "abc"
    assert projected.client.get_run(first.parent_run_id).info.status == "FINISHED"


def test_states_are_those_of_the_ledger(projected: Projected) -> None:
    projection = projected.projection()
    failing, diverging = projected.lease(), projected.lease()
    for _ in range(3):
        projected.ledger.fail(failing, projected.owner, "poison")
        again = projected.ledger.lease("tiny", "sweep", projected.owner)
        if again is not None and again.key != failing:
            projected.ledger.release(again.key, projected.owner)
    projected.ledger.finish(diverging, projected.owner, "diverged", {"status": "diverged", "steps": 7})
    projection.sync()
    children = projected.children()
    assert children[diverging].info.status == "FAILED"
    assert len(children) == len([row for row in projected.ledger.runs("tiny") if row.started_at is not None])
    assert all(run.data.tags["mlflow.parentRunId"] == projection.parent_run_id for run in children.values())


def test_files_lie_in_the_workspace_and_not_where_the_command_was_started(projected: Projected) -> None:
    projection = projected.projection()
    artifacts = projected.client.get_run(projection.parent_run_id).info.artifact_uri
    assert artifacts.startswith((projected.conductor.workspace.root / "mlartifacts").as_uri())


def test_a_store_that_cannot_be_opened_stops_nothing_and_is_reported(projected: Projected, tmp_path: Path) -> None:
    unreachable = f"sqlite:///{tmp_path}"  # a folder, which no database can be
    thread = ProjectionThread(projected.ledger.url, unreachable, None, "tiny", projected.plan, every_seconds=0.1)
    assert thread.finish(timeout=3) is None
    assert thread.fault is not None
