"""MLflow as a projection of the ledger: a study is a parent run, each of its runs a child, a branch its trunk's child.

One process projects; workers never talk to MLflow. What was sent is remembered in the ledger, so an interrupted
projection goes on where it stopped, into the same MLflow runs. A tracking server that is away delays nothing: the next
sync, of this process or another, sends what it missed. A batch that was sent without our hearing of it is sent again
as it was, and stores keep equal points once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from scaling.errors import UserError
from scaling.forecast import Forecast
from scaling.record import content_hash
from sweeps.ledger.ledger import Ledger, RunRow
from sweeps.planning.plan import Plan
from sweeps.tracking.corpus_input import corpus_input
from sweeps.tracking.records import (
    LAYOUT,
    STATUS,
    final_metrics,
    forecast_metrics,
    metrics_of,
    params_of,
    system_tags,
    tags_of,
)
from sweeps.tracking.registered_model import register_model, registered_model
from sweeps.tracking.run_facts import facts_of_study
from sweeps.tracking.sent import Sent, forget, sent_of, unsent_points
from sweeps.tracking.store import active_runs, experiment_id, open_client

__all__ = ["EXPERIMENT_PREFIX", "MlflowProjection"]

EXPERIMENT_PREFIX = "scaling/"
_GROWS = {"sweep", "hold_out", "rounds", "cured", "expected"}
POINTS_PER_BATCH = 250
"""Four metrics a point at most, and MLflow takes 1,000 at a time."""
_LAYOUT_TAG = "scaling.layout"
log = logging.getLogger(__name__)


class MlflowProjection:
    """Keeps one study's MLflow runs like its ledger rows. Not thread-safe: use one in one thread."""

    def __init__(
        self,
        ledger_url: str,
        tracking_uri: str,
        artifacts: str | None,
        study: str,
        plan: Plan,
        checkpoints: Callable[[str], Path] | None = None,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        """``artifacts`` is where a new experiment keeps its files; None leaves it to the tracking server.

        ``checkpoints`` gives the folder of a run's by its key; without it they are not named, and no model is
        registered. ``say`` is told of a model that can't be.
        """
        self.answered_at = time.monotonic()
        """When the store last did what it was asked."""
        self._artifacts, self._checkpoints, self._say = artifacts, checkpoints, say
        self._ledger = Ledger(ledger_url)
        self._client: MlflowClient = open_client(tracking_uri)
        self._uri, self._study, self._plan = tracking_uri, study, plan
        self._experiment = experiment_id(self._client, EXPERIMENT_PREFIX + self._study, self._artifacts)
        self._sent: dict[str, Sent] = {}
        self._forecasts: dict[str, Any] = {}
        """By the key of each run that was forecast."""
        self._adopted: set[str] = set()
        """Keys whose MLflow runs were made, but perhaps not yet given their parameters."""
        self._outdated = False
        """Whether an earlier version sent the runs that are there, which knew less to say of them."""
        self._find_what_is_there()
        self.parent_run_id = self._parent()

    # The study's own run

    def _find_what_is_there(self) -> None:
        """What was sent, without runs that somebody has deleted since, and with those that were made unheard."""
        runs = {run.info.run_id: run.data.tags for run in active_runs(self._client, self._experiment)}
        sent = sent_of(self._ledger, self._uri, self._study)
        study = sent.get("")
        self._outdated = study is not None and runs.get(study.mlflow_run_id, {}).get(_LAYOUT_TAG) != LAYOUT
        gone = {known.mlflow_run_id for known in sent.values()} - runs.keys()
        if gone:
            forget(self._ledger, self._uri, self._study, gone)
        self._sent = {key: known for key, known in sent.items() if known.mlflow_run_id not in gone}
        plan = self._plan_hash()
        for run_id, tags in runs.items():
            key = tags.get("scaling.run_key", "")
            if (tags.get("scaling.plan"), tags.get("scaling.study")) == (plan, self._study) and key not in self._sent:
                self._sent[key] = Sent(run_id)
                self._adopted.add(key)

    def _plan_hash(self) -> str:
        """Of what stays as it is while a plan grows by rounds and cures."""
        return content_hash(self._plan.model_dump(mode="json", exclude=_GROWS))[:16]

    def _parent(self) -> str:
        known = self._sent.get("")
        if known:
            if "" in self._adopted:
                self._describe_study(known.mlflow_run_id)
                self._remember("", known)
            self._client.update_run(known.mlflow_run_id, status="RUNNING")
            return known.mlflow_run_id
        tags = {
            "scaling.kind": "study",
            "scaling.study": self._study,
            "scaling.plan": self._plan_hash(),
            "scaling.data_key": self._plan.corpus.data_key,
            "scaling.architecture": ", ".join(sorted({shape.architecture for shape in self._plan.shapes})),
            "scaling.budget": f"{self._plan.sweep_flops:.2e}",
            "mlflow.source.name": "scaling run",
            _LAYOUT_TAG: LAYOUT,
        }
        run = self._client.create_run(self._experiment, run_name=self._study, tags=tags)
        self._describe_study(run.info.run_id)
        self._remember("", Sent(run.info.run_id))
        return str(run.info.run_id)

    def _describe_study(self, run_id: str) -> None:
        """The plan as parameters, the corpus as the data set that the study was trained on."""
        facts = [Param(name, str(value)[:500]) for name, value in self._plan.facts().items()]
        # MLflow changes no parameter: of a plan that has grown since, it keeps what it was told first.
        told = self._client.get_run(run_id).data.params
        self._client.log_batch(run_id, params=[one for one in facts if one.key not in told])
        self._client.log_inputs(run_id, [corpus_input(self._plan)])

    def _remember(self, key: str, sent: Sent) -> None:
        self._sent[key] = sent
        values: dict[str, Any] = {"experiment_id": self._experiment, **sent._asdict()}
        self._ledger.set_mlflow_run(self._uri, self._study, key, **values)

    def end(self, status: str) -> None:
        """Set the parent's status: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.parent_run_id, status=status)
        self._ledger.close()

    def model_of(self, key: str) -> str | None:
        """The address of the registered model of the run ``key``, if it has one."""
        sent = self._sent.get(key)
        return None if sent is None else registered_model(self._client, sent.mlflow_run_id, self._study)

    # Its runs

    def sync(self, *, anew: bool = False, progress: Callable[[str, float], None] | None = None) -> None:
        """Bring MLflow up to the ledger's present state; ``anew`` sends again what it should hold already, as does the
        first sync of runs that an earlier version sent."""
        anew = anew or self._outdated
        if anew:
            self._adopted |= self._sent.keys() - {""}
            self._sent = {key: Sent(sent.mlflow_run_id) for key, sent in self._sent.items()}
        rows = {row.key: row for row in self._ledger.runs(self._study)}
        facts = facts_of_study(self._ledger, self._study)
        self._forecasts = {key: row for row in self._ledger.forecasts(self._study) for key in row.run_keys}
        carriers = {row.carrier for row in rows.values()}
        for done, row in enumerate(rows.values()):
            if row.started_at is not None:
                self._sync_run(row, rows, carriers, facts.get(row.key))
            if progress:
                progress("sending to MLflow", done / len(rows))
        if anew:
            self._client.set_tag(self.parent_run_id, _LAYOUT_TAG, LAYOUT)
            self._outdated = False

    def _sync_run(
        self, row: RunRow, rows: dict[str, RunRow], carriers: set[str | None], facts: dict[str, Any] | None
    ) -> None:
        sent = self._sent.get(row.key)
        if sent and sent.state_sent == row.state != "running":
            return
        sent = sent or self._child(row, rows, carriers)
        if row.key in self._adopted:
            tags = [RunTag(*tag) for tag in self._tags(row, rows, carriers).items()]
            self._client.log_batch(sent.mlflow_run_id, tags=tags)
            self._describe(sent.mlflow_run_id, row, self._client.get_run(sent.mlflow_run_id).data.params)
            self._adopted.discard(row.key)
        while points := unsent_points(self._ledger, row.key, sent.points_sent, POINTS_PER_BATCH):
            self._client.log_batch(sent.mlflow_run_id, metrics=metrics_of(points))
            sent = sent._replace(points_sent=points[-1].id)
            self._remember(row.key, sent)
            self.answered_at = time.monotonic()
        if sent.state_sent == row.state:
            return
        run_id = sent.mlflow_run_id
        if sent.state_sent in ("failed", "killed") and "scaling.error" in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, "scaling.error")  # it was planned again
        final = final_metrics(row) if row.state in ("finished", "diverged") else []
        self._client.log_batch(run_id, metrics=final, tags=system_tags(row, facts))
        if row.stage == "final" and row.state == "finished" and self._checkpoints is not None:
            self._register_model(run_id, row, self._checkpoints(row.key))
        if row.state == "running":
            self._client.update_run(run_id, status="RUNNING")
        else:
            ended = int((row.ended_at or time.time()) * 1000)
            self._client.set_terminated(run_id, status=STATUS[row.state], end_time=ended)
        self._remember(row.key, sent._replace(state_sent=row.state))
        self.answered_at = time.monotonic()

    def _register_model(self, mlflow_run_id: str, row: RunRow, folder: Path) -> None:
        link = self._forecasts.get(row.key)
        forecast = None if link is None else Forecast.model_validate(link.forecast)
        try:
            register_model(self._client, mlflow_run_id, self._study, row, folder, forecast)
        except UserError as error:
            self._say(f"{row.label}: its model is not registered in MLflow: {error}")
        self.answered_at = time.monotonic()

    def _child(self, row: RunRow, rows: dict[str, RunRow], carriers: set[str | None]) -> Sent:
        """Make the MLflow run, under the study or, of a branch, under its trunk."""
        trunk = rows.get(row.carrier) if row.carrier else None
        parent = self.parent_run_id
        if trunk is not None and trunk.started_at is not None:
            parent = (self._sent.get(trunk.key) or self._child(trunk, rows, carriers)).mlflow_run_id
        tags = self._tags(row, rows, carriers) | {"mlflow.parentRunId": parent}
        started = int((row.started_at or time.time()) * 1000)
        run = self._client.create_run(self._experiment, run_name=row.label, tags=tags, start_time=started)
        self._describe(run.info.run_id, row)
        sent = Sent(str(run.info.run_id))
        self._remember(row.key, sent)
        return sent

    def _tags(self, row: RunRow, rows: Mapping[str, RunRow], carriers: Collection[str | None]) -> dict[str, str]:
        kind = "branch" if row.carrier in rows else "trunk" if row.key in carriers else "run"
        folder = self._checkpoints(row.key) if self._checkpoints else None
        tags = tags_of(row, self._study, kind, self._plan.numerics.label, folder)
        tags["scaling.plan"] = self._plan_hash()
        if row.key in self._forecasts:
            tags["scaling.forecast"] = self._forecasts[row.key].hash
        return tags

    def _describe(self, mlflow_run_id: str, row: RunRow, told: Collection[str] = ()) -> None:
        """What is known of a run before its first step, but for parameters that were ``told``: MLflow changes none."""
        link = self._forecasts.get(row.key)
        expected = forecast_metrics(link.forecast, link.registered_at) if link else []
        self._client.log_batch(
            mlflow_run_id, params=[one for one in params_of(row) if one.key not in told], metrics=expected
        )
