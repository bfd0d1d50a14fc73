"""A run of the ledger in MLflow's words: parameters, tags and metrics. Pure functions of what the ledger holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from scaling import architectures
from scaling.quantity import format_count
from sweeps.ledger.ledger import LARGE, RunRow
from sweeps.standing import Standing

__all__ = [
    "LAYOUT",
    "STATUS",
    "final_metrics",
    "forecast_metrics",
    "metrics_of",
    "params_of",
    "study_status",
    "system_tags",
    "tags_of",
]

LAYOUT = "2"
"""Raise it when runs get other tags, parameters or metrics: runs that were sent before are then brought up to date."""
STATUS = {
    "finished": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "planned": "KILLED",
    "killed": "KILLED",
    "pruned": "KILLED",
    "running": "RUNNING",
}
"""A run that was taken up and is planned again was interrupted."""
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
_LONGEST_TAG = 5000


def study_status(now: Standing) -> str:
    """Of the study's own MLflow run, once nobody projects it any more."""
    return "RUNNING" if now.running else "FINISHED" if now.ended else "KILLED"


def tags_of(row: RunRow, study: str, kind: str, numerics: str, checkpoints: Path | None = None) -> dict[str, str]:
    """What the run is found and grouped by; ``kind`` is trunk, branch or run. Its checkpoints are named, not copied."""
    shape = row.spec.shape
    tags = {
        "mlflow.source.name": "scaling train" if row.stage in LARGE else "scaling sweep",
        "scaling.kind": kind,
        "scaling.study": study,
        "scaling.run_key": row.key,
        "scaling.trunk_key": row.spec.trunk_key,
        "scaling.stage": row.stage,
        "scaling.architecture": shape.architecture,
        "scaling.family": architectures.family_of(shape.architecture),
        "scaling.size": format_count(architectures.get(shape.architecture).count_parameters(shape).total),
        "scaling.numerics": numerics,
    }
    if row.budget_flops:
        tags["scaling.budget"] = f"{row.budget_flops:.2e}"
    if checkpoints is not None:
        tags["scaling.checkpoints"] = checkpoints.as_uri()
    return tags


def params_of(row: RunRow) -> list[Param]:
    spec, shape = row.spec, row.spec.shape
    counts = architectures.get(shape.architecture).count_parameters(shape)
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
    return [Param(name, str(value)) for name, value in params.items()]


def metrics_of(points: Sequence[Any]) -> list[Metric]:
    """Each value; beside the first of a step, its tokens and FLOPs as metrics: MLflow's chart puts them on x.

    FLOPs as their logarithm too, for the chart has a logarithmic x axis for steps alone.
    """
    metrics = []
    for point in points:
        stamp = int(point.time * 1000)
        metrics.append(Metric(point.name, float(point.value), stamp, point.step))
        if point.first_of_step:
            metrics.append(Metric("tokens", float(point.tokens), stamp, point.step))
            metrics.append(Metric("flops", float(point.flops), stamp, point.step))
            if point.flops > 0:
                metrics.append(Metric("log10_flops", math.log10(point.flops), stamp, point.step))
    return metrics


def final_metrics(row: RunRow) -> list[Metric]:
    """The result's numbers as ``final_NAME``, and those of a domain as ``final_NAME/DOMAIN``.

    With them size and tokens a parameter, for MLflow compares metrics as numbers and parameters as text.
    """
    stamp, result = int((row.ended_at or 0.0) * 1000), row.result or {}
    found = {name: result.get(name) for name in _FINAL}
    for domain, loss in (result.get("domains") or {}).items():
        plain = _NOT_IN_NAMES.sub("_", domain)
        found |= {f"{name}/{plain}": loss[name] for name in ("loss_nats", "loss_sem", "bits_per_byte")}
    size = architectures.total_params(row.spec.shape)
    sizes = {"params_total": size, "log10_params": math.log10(size), "tokens_per_param": row.spec.tokens / size}
    named = {f"final_{name}": value for name, value in found.items()} | sizes
    return [Metric(name, float(value), stamp, row.step) for name, value in named.items() if value is not None]


def forecast_metrics(forecast: Mapping[str, Any], registered_at: float) -> list[Metric]:
    """What was said of the run before it began, to stand beside its ``final_loss_nats``."""
    loss, stamp = forecast["loss"], int(registered_at * 1000)
    found = {"": loss["estimate"], "_low": loss["low"], "_high": loss["high"]}
    return [Metric(f"forecast_loss{end}", value, stamp, 0) for end, value in found.items() if value is not None]


def system_tags(row: RunRow, facts: Mapping[str, Any] | None) -> list[RunTag]:
    """What the run ran on, as its worker recorded it at the start and in the result; the commit under the name that
    MLflow's pages look for. Why it failed, if it did."""
    known = dict(facts or {}) | ((row.result or {}).get("system") or {})
    tags = [RunTag(f"scaling.{name}", str(value)) for name, value in known.items() if value is not None]
    if known.get("git_commit"):
        tags.append(RunTag("mlflow.source.git.commit", known["git_commit"]))
    if row.error and row.state in ("failed", "killed"):
        tags.append(RunTag("scaling.error", row.error[:_LONGEST_TAG]))
    return tags
