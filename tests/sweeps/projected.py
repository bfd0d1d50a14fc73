"""A study whose runs are moved by hand, and its MLflow side: for tests of the projection and of its faults."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.conduct import Conductor
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.planning.plan import Plan, run_spec
from sweeps.study import Study
from sweeps.tracking.projection import MlflowProjection
from sweeps.workspace import Workspace

from .studies import small_study

STUDY = "tiny"
FACTS = {"torch": "2.13.0", "git_commit": "abc", "git_dirty": False, "installed": "def", "gpu": None}
RESULT = {
    "status": "finished", "steps": 40, "loss_nats": 3.2, "loss_sem": 0.01, "bits_per_byte": 1.1, "wall_seconds": 2.0,
    "tokens_per_second": 1e4, "mfu": 0.25, "energy_joules": None,
    "domains": {"plays (old)": {"loss_nats": 3.5, "loss_sem": None, "bits_per_byte": 1.3, "tokens": 9, "works": 1}},
    "system": FACTS,
}  # fmt: skip


def frozen_study(text: Path, root: Path, silent: Any) -> tuple[Study, Path]:
    """The study and a ledger that holds its plan: made once, and copied for each test."""
    # One batch for all: that a run of 128 x 40 tokens has forty steps is written into what the tests expect.
    recipe = {"learning_rate": 0.01, "global_batch_tokens": 128, "batch_exponent": 0}
    study, workspace = small_study(text, hyperparameters=recipe), Workspace(root)
    conductor = Conductor(study, workspace, silent)
    conductor.plan()
    conductor.ledger.close()
    return study, root / "ledger.db"


class Projected:
    def __init__(self, study: Study, frozen: Path, root: Path, runs: int = 3) -> None:
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(frozen, root / "ledger.db")
        self.workspace = Workspace(root)
        self.ledger = Ledger(self.workspace.ledger_url)
        stored = self.ledger.plan_of(STUDY)
        assert stored is not None
        self.plan = Plan.model_validate(stored[1])
        self.uri = self.workspace.tracking_uri("sqlite:///mlflow.db")
        self.owner = Owner.me()
        shape = self.plan.sweep[0].point.shape
        specs = [run_spec(study, self.plan, shape, 128 * 40, 0.01, seed) for seed in range(runs)]
        self.ledger.add(STUDY, [PlannedRun(spec=s, stage="sweep", label=f"run {s.seed}") for s in specs])
        branch = run_spec(study, self.plan, shape, 128 * 30, 0.01, 0)
        planned = PlannedRun(spec=branch, stage="sweep", label="branch", carrier=specs[0].key)
        self.ledger.add(STUDY, [planned])
        self.trunk, self.branch = specs[0].key, branch.key

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def projection(self) -> MlflowProjection:
        artifacts = self.workspace.artifacts_uri(self.uri)
        return MlflowProjection(self.ledger.url, self.uri, artifacts, STUDY, self.plan)

    def lease(self) -> str:
        spec = self.ledger.lease(STUDY, "sweep", self.owner)
        assert spec is not None
        return spec.key

    def points(self, key: str, steps: range) -> None:
        values = {"train_loss": 5.0, "held_out_loss": 5.5, "learning_rate": 0.01}
        points = [
            {"step": step, "tokens": 128 * step, "flops": 1e6 * step, "name": name, "value": value - step / 50}
            for step in steps
            for name, value in values.items()
        ]
        self.ledger.add_points(key, points)

    def train_all(self) -> None:
        """Every run to its end, but for one that fails for good."""
        while leased := self.ledger.lease(STUDY, "sweep", self.owner):
            self.points(leased.key, range(1, 41))
            if leased.seed == 1:
                self.ledger.fail(leased.key, self.owner, "poison")
            else:
                self.ledger.finish(leased.key, self.owner, "finished", RESULT)

    def children(self) -> dict[str, Run]:
        runs = self.runs()
        return {run.data.tags["scaling.run_key"]: run for run in runs if "scaling.run_key" in run.data.tags}

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(f"scaling/{STUDY}")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id], max_results=1000))

    def shown(self) -> dict[str, Any]:
        """All that MLflow holds of the study's runs but for its own identifiers: one entry a run, or a failure."""
        runs = self.runs()
        names = {run.info.run_id: run.data.tags.get("scaling.run_key", "study") for run in runs}
        assert len(set(names.values())) == len(runs), "a run is shown twice"
        shown: dict[str, Any] = {}
        for run in runs:
            curves = {
                name: sorted(
                    (m.step, m.timestamp, m.value) for m in self.client.get_metric_history(run.info.run_id, name)
                )
                for name in run.data.metrics
            }
            tags = {name: names.get(value, value) for name, value in run.data.tags.items()}
            shown[names[run.info.run_id]] = (run.info.status, run.info.run_name, run.data.params, tags, curves)
        return shown
