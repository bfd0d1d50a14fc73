"""Post-training in MLflow: a run for the pipeline and under it one a stage, with its curve, found by its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from sweeps.tracking.store import STORE_FAULTS, active_runs, experiment_id, open_client
from sweeps.workspace import Workspace
from trainer.posttrain.stage import StageFolder

__all__ = ["send_stages"]

_AT_ONCE = 1000
"""Metrics that one request may carry."""
_LONGEST_PARAM = 500


def send_stages(
    workspace: Workspace,
    uri: str,
    name: str,
    stages: Sequence[tuple[int, str, StageFolder]],
    say: Callable[[str], None],
) -> str | None:
    """The address of the pipeline's run, with all ``stages`` (seed, name, folder) under it; those sent are left alone.

    A store that can't be reached is told in a line: the stages are on the disk, and the same command sends them.
    """
    try:
        client = open_client(workspace.tracking_uri(uri))
        experiment = experiment_id(client, f"posttrain/{name}", workspace.artifacts_uri(uri))
        known = {
            run.data.tags["stage_key"]: run.info.run_id
            for run in active_runs(client, experiment, "tags.stage_key != ''")
        }
        parent = known.get("pipeline") or _begin(client, experiment, name, "pipeline", {"pipeline": name})
        for seed, stage, folder in stages:
            if folder.spec().key not in known:
                _send(client, experiment, parent, seed, stage, folder)
        _summary(client, parent, stages)
        client.set_terminated(parent)
        return f"{uri} experiment posttrain/{name} run {parent}"
    except STORE_FAULTS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"MLflow was not told ({reason}): the same command sends what is missing")
        return None


def _begin(client: MlflowClient, experiment: str, name: str, key: str, tags: Mapping[str, str]) -> str:
    run = client.create_run(experiment, run_name=name, tags={"stage_key": key, **tags})
    return str(run.info.run_id)


def _send(client: MlflowClient, experiment: str, parent: str, seed: int, stage: str, folder: StageFolder) -> None:
    """The key is the last thing that is written: a run without it was cut short and is not taken for sent."""
    spec, result = folder.spec(), folder.result()
    assert result is not None, "only a stage that ended is sent"
    tags = {"mlflow.parentRunId": parent, "stage": stage, "kind": spec.kind, "seed": str(seed)}
    run = client.create_run(experiment, run_name=f"{stage} seed {seed}", tags=tags).info.run_id
    params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in _flat(spec.settings) if value is not None]
    params.append(Param("seed", str(seed)))
    client.log_batch(run, params=params[:100])
    rows = folder.curve()
    metrics = [
        Metric(name, value, 0, int(row["step"])) for row in rows for name, value in row.items() if name != "step"
    ]
    metrics += [Metric(_metric(name), value, 0, result.steps) for name, value in result.metrics.items()]
    for name, interval in result.intervals.items():
        for side, value in (("low", interval.low), ("high", interval.high)):
            if value is not None:
                metrics.append(Metric(f"{_metric(name)}_{side}", value, 0, result.steps))
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + _AT_ONCE])
    client.log_artifact(run, str(folder.path / "result.json"))
    if folder.rows.exists():
        client.log_artifact(run, str(folder.rows))
    client.log_batch(run, tags=[RunTag("stage_key", spec.key), RunTag("folder", str(folder.path))])
    client.set_terminated(run)


def _summary(client: MlflowClient, parent: str, stages: Sequence[tuple[int, str, StageFolder]]) -> None:
    """What the comparisons found, as metrics of the pipeline's run with the seed as step."""
    for seed, stage, folder in stages:
        result = folder.result()
        if stage == "compare" and result is not None:
            metrics = [Metric(_metric(name), value, 0, seed) for name, value in result.metrics.items()]
            client.log_batch(parent, metrics=metrics)


def _metric(name: str) -> str:
    """MLflow groups charts by what stands before the slash: what was measured, so that policies stand side by side."""
    policy, slash, what = name.partition("/")
    return f"{what}/{policy}" if slash else name


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value if isinstance(value, str | int | float) else json.dumps(value)))
    return found
