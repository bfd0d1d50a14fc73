"""MLflow as a projection of the ledger: a study is a parent run, each of its runs a child.

One process projects; workers never talk to MLflow. What was sent is remembered in the ledger, so an interrupted
projection goes on where it stopped, into the same MLflow runs. A tracking server that is away delays nothing: the next
sync sends what it missed.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from scaling import architectures
from scaling.quantity import format_count
from sweeps.ledger import Ledger, RunRow
from sweeps.plan import Plan

__all__ = ["MlflowProjection", "ProjectionThread"]

EXPERIMENT_PREFIX = "scaling/"
_METRICS_PER_BATCH = 900
_FINAL = (
    "loss_nats",
    "loss_sem",
    "bits_per_byte",
    "wall_seconds",
    "tokens_per_second",
    "flops_per_second",
    "mfu",
    "peak_memory_bytes",
    "energy_joules",
)
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]", re.ASCII)
_STATUS = {"finished": "FINISHED", "diverged": "FAILED", "failed": "FAILED", "planned": "KILLED"}
log = logging.getLogger(__name__)


class MlflowProjection:
    """Keeps one study's MLflow runs like its ledger rows. Not thread-safe: use one in one thread."""

    def __init__(self, ledger_url: str, tracking_uri: str, artifacts: str | None, study: str, plan: Plan) -> None:
        """``artifacts`` is where a new experiment keeps its files; None leaves it to the tracking server."""
        self._artifacts = artifacts
        self._ledger = Ledger(ledger_url)
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._uri, self._study, self._plan = tracking_uri, study, plan
        self._experiment = self._experiment_id()
        self.parent_run_id = self._parent()

    def _experiment_id(self) -> str:
        name = EXPERIMENT_PREFIX + self._study
        found = self._client.get_experiment_by_name(name)
        return str(
            found.experiment_id if found else self._client.create_experiment(name, artifact_location=self._artifacts)
        )

    def _parent(self) -> str:
        known = self._ledger.mlflow_run(self._uri, self._study, "")
        if known:
            self._client.update_run(known.mlflow_run_id, status="RUNNING")
            return str(known.mlflow_run_id)
        run = self._client.create_run(
            self._experiment,
            run_name=self._study,
            tags={
                "scaling.kind": "study",
                "scaling.study": self._study,
                "scaling.data_key": self._plan.corpus.data_key,
            },
        )
        self._client.log_batch(run.info.run_id, params=[Param(k, str(v)[:500]) for k, v in self._plan.facts().items()])
        self._ledger.set_mlflow_run(self._uri, self._study, "", **self._ids(run.info.run_id))
        return str(run.info.run_id)

    def _ids(self, run_id: str) -> dict[str, str]:
        return {"experiment_id": self._experiment, "mlflow_run_id": run_id}

    def sync(self) -> None:
        """Bring MLflow up to the ledger's present state."""
        for row in self._ledger.runs(self._study):
            if row.started_at is not None:
                self._sync_run(row)

    def end(self, status: str) -> None:
        """Set the parent's status: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.parent_run_id, status=status)
        self._ledger.close()

    def _sync_run(self, row: RunRow) -> None:
        known = self._ledger.mlflow_run(self._uri, self._study, row.key)
        if known and known.state_sent == row.state != "running":
            return
        run_id = known.mlflow_run_id if known else self._child(row)
        sent = known.points_sent if known else 0
        while points := self._ledger.points(row.key, after_id=sent)[: _METRICS_PER_BATCH // 3]:
            self._client.log_batch(run_id, metrics=_metrics(points))
            sent = points[-1].id
            self._ledger.set_mlflow_run(self._uri, self._study, row.key, **self._ids(run_id), points_sent=sent)
        if row.state in ("finished", "diverged"):
            self._client.log_batch(run_id, metrics=_final_metrics(row), tags=_system_tags(row))
        if not known or known.state_sent != row.state:
            if row.state == "running":
                self._client.update_run(run_id, status="RUNNING")
            else:
                ended = int((row.ended_at or time.time()) * 1000)
                self._client.set_terminated(run_id, status=_STATUS[row.state], end_time=ended)
            self._ledger.set_mlflow_run(
                self._uri, self._study, row.key, **self._ids(run_id), points_sent=sent, state_sent=row.state
            )

    def _child(self, row: RunRow) -> str:
        spec, shape = row.spec, row.spec.shape
        counts = architectures.get(shape.architecture).count_parameters(shape)
        tags = {
            "mlflow.parentRunId": self.parent_run_id,
            "scaling.kind": "run",
            "scaling.study": self._study,
            "scaling.run_key": row.key,
            "scaling.stage": row.stage,
            "scaling.architecture": shape.architecture,
            "scaling.size": format_count(counts.total),
            "scaling.numerics": self._plan.numerics.label,
        }
        if row.budget_flops:
            tags["scaling.budget"] = f"{row.budget_flops:.2e}"
        params: dict[str, Any] = {
            "params_total": counts.total,
            "params_nonembedding": counts.nonembedding,
            "params_with_head": counts.with_head,
            "tokens": spec.tokens,
            "flops_exact": f"{row.flops:.6e}",
            "tokens_per_param": f"{spec.tokens / counts.total:.4g}",
            "layers": shape.layers,
            "width": shape.width,
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "ffn_width": shape.ffn_width,
            "vocabulary": shape.vocabulary,
            "context": shape.context,
            "seed": spec.seed,
            "learning_rate": spec.optimizer.learning_rate,
            "weight_decay": spec.optimizer.weight_decay,
            "global_batch_tokens": spec.global_batch_tokens,
            "schedule": spec.schedule.kind,
            "data_key": spec.data_key,
            "tokenizer_key": spec.tokenizer_key,
        }
        started = int((row.started_at or time.time()) * 1000)
        run = self._client.create_run(self._experiment, run_name=row.label, tags=tags, start_time=started)
        self._client.log_batch(
            run.info.run_id,
            params=[Param(k, str(v)) for k, v in params.items()],
            tags=[RunTag("mlflow.source.name", "scaling sweep")],
        )
        self._ledger.set_mlflow_run(self._uri, self._study, row.key, **self._ids(run.info.run_id))
        return str(run.info.run_id)


def _metrics(points: list[Any]) -> list[Metric]:
    """Each value, with tokens and FLOPs logged as metrics at the same steps: MLflow's chart can then put them on x."""
    metrics: dict[tuple[str, int], Metric] = {}
    for point in points:
        stamp = int(point.time * 1000)
        for name, value in ((point.name, point.value), ("tokens", point.tokens), ("flops", point.flops)):
            metrics[name, point.step] = Metric(name, float(value), stamp, point.step)
    return list(metrics.values())


def _final_metrics(row: RunRow) -> list[Metric]:
    """The result's numbers as ``final_NAME``, and those of a domain as ``final_NAME/DOMAIN``."""
    stamp, result = int((row.ended_at or time.time()) * 1000), row.result or {}
    found = {name: result.get(name) for name in _FINAL}
    for domain, loss in (result.get("domains") or {}).items():
        plain = _NOT_IN_NAMES.sub("_", domain)
        found |= {f"{name}/{plain}": loss[name] for name in ("loss_nats", "loss_sem", "bits_per_byte")}
    return [
        Metric(f"final_{name}", float(value), stamp, row.step) for name, value in found.items() if value is not None
    ]


def _system_tags(row: RunRow) -> list[RunTag]:
    """What the run ran on, as its worker recorded it; the commit under the name that MLflow's pages look for."""
    facts = (row.result or {}).get("system") or {}
    tags = [RunTag(f"scaling.{name}", str(value)) for name, value in facts.items() if value is not None]
    commit = facts.get("git_commit")
    return tags + ([RunTag("mlflow.source.git.commit", commit)] if commit else [])


class ProjectionThread:
    """Projects in the background while a study runs; a fault of the tracking store is logged and tried again."""

    def __init__(
        self,
        ledger_url: str,
        tracking_uri: str,
        artifacts: str | None,
        study: str,
        plan: Plan,
        *,
        every_seconds: float = 3.0,
    ) -> None:
        self._arguments = (ledger_url, tracking_uri, artifacts, study, plan)
        self._every, self._stop = every_seconds, threading.Event()
        self._projection: MlflowProjection | None = None
        self.fault: Exception | None = None
        self._thread = threading.Thread(target=self._loop, name="mlflow-projection", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            stopping = self._stop.wait(self._every if self._projection else 0)
            try:
                if self._projection is None:
                    self._projection = MlflowProjection(*self._arguments)
                self._projection.sync()
                self.fault = None
            except Exception as error:
                self.fault = error
                log.warning("MLflow at %s: %s", self._arguments[1], error)
            if stopping:
                return

    def finish(self, timeout: float = 60.0) -> MlflowProjection | None:
        """Stop after one last sync; the projection, or None if MLflow could not be reached in ``timeout`` seconds."""
        self._stop.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.fault = TimeoutError(f"no answer within {timeout:.0f} s")
        return None if self._thread.is_alive() or self.fault else self._projection
