"""The runs of an MLflow experiment, whoever logged them: parameters, tags and metrics as columns.

Nested runs are rows like others. MLflow keeps a metric's last value beside the run, so only a column ``metrics.X.min``
that is asked for costs a request a run. An experiment that this software made reads back as its study's table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from analysis.readers.logged import MINIMUM, Asked, LoggedRuns, frame_of, short_name
from scaling.errors import UserError
from sweeps.tracking.store import impatient_client

__all__ = ["read_experiment"]

_PAGE = 1000
_USUAL_STORES = (("mlflow.db", "sqlite:///{}"), ("workspace/mlflow.db", "sqlite:///{}"), ("mlruns", "file://{}"))
_FAULTS = (MlflowException, SQLAlchemyError, OSError)
_OWN_STAGES = {"sweep": "fit", "hold-out": "hold-out"}
"""Of this software's runs, those that a law is fitted to or tested on, and their role in the table."""


def read_experiment(named: str, asked: Asked) -> LoggedRuns:
    """The experiment of this name or id, its finished runs or, ``asked.unfinished``, all that were not deleted.

    Raises ``UserError`` where the store can't be reached or has no such experiment, with the names that it has.
    """
    uri = _tracking_uri(asked.tracking_uri)
    try:
        client = impatient_client(uri)
        experiment = _experiment(client, named, uri)
        runs = list(_runs(client, experiment, asked))
        minima = [name for name in _metrics_of(runs) if _is_asked(f"metrics.{name}{MINIMUM}", asked)]
        rows = []
        for done, run in enumerate(runs):
            rows.append(_row(run) | {f"metrics.{name}{MINIMUM}": _minimum(client, run, name) for name in minima})
            if minima:
                asked.progress(done + 1, len(runs))
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"MLflow at {_shown(uri)} can't be read: {reason}") from None
    ended = [row for row in rows if asked.unfinished or row["status"] == "FINISHED"]
    if asked.unfinished:
        for row in ended:
            del row["status"]
    kept = [row for row in ended if row.pop("stage") in _OWN_STAGES]
    return LoggedRuns(frame_of(kept), f"MLflow experiment {experiment.name}", experiment.name, len(rows) - len(ended))


def _tracking_uri(given: str | None) -> str:
    """Never MLflow's own default, which depends on what lies in the current folder."""
    if given:
        if given.startswith("sqlite:///") and not Path(given.removeprefix("sqlite:///")).is_file():
            raise UserError(f"--tracking-uri {given}: there is no such file")
        return _readable(given)
    for path, uri in _USUAL_STORES:
        if Path(path).exists():
            return _readable(uri.format(Path(path).resolve()))
    raise UserError(
        "which MLflow store? Give --tracking-uri or set MLFLOW_TRACKING_URI, for example sqlite:///mlflow.db or "
        "http://127.0.0.1:5000 (here is neither mlflow.db nor mlruns)"
    )


def _readable(uri: str) -> str:
    """MLflow refuses its older stores of plain files, unless it is told that they are meant."""
    if "://" not in uri or uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return uri


def _shown(uri: str) -> str:
    """Without a password."""
    scheme, apart, rest = uri.partition("://")
    return f"{scheme}{apart}{rest.rpartition('@')[2]}"


def _experiment(client: MlflowClient, named: str, uri: str) -> Experiment:
    found = client.get_experiment_by_name(named)
    if found is None and named.isdecimal():
        found = next((one for one in client.search_experiments() if one.experiment_id == named), None)
    if found is not None and found.lifecycle_stage == "active":
        return found
    names = [one.name for one in client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=21)]
    more = " and more" if len(names) > 20 else ""
    raise UserError(
        f"MLflow at {_shown(uri)} has no experiment {named!r}; it has {', '.join(names[:20]) or 'none'}{more}"
    )


def _runs(client: MlflowClient, experiment: Experiment, asked: Asked) -> Iterator[Run]:
    token, done = None, 0
    asked.progress(done, None)
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=_PAGE, page_token=token)
        yield from page
        done, token = done + len(page), page.token
        asked.progress(done, None)
        if not token:
            return


def _metrics_of(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.data.metrics))


def _is_asked(column: str, asked: Asked) -> bool:
    return column in asked.columns or short_name(column) in asked.columns


def _minimum(client: MlflowClient, run: Run, name: str) -> float | None:
    if name not in run.data.metrics:
        return None
    values = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
    return min((value for value in values if not math.isnan(value)), default=None)


def _row(run: Run) -> dict[str, object]:
    """Of one run; ``stage``, which is not shown, is one of this software's studies, or "sweep" of others' runs."""
    ours = "scaling.run_key" in run.data.tags
    stage = run.data.tags.get("scaling.stage", "") if ours else "" if "scaling.kind" in run.data.tags else "sweep"
    row: dict[str, object] = {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "stage": stage,
    }
    if ours:
        row["role"] = _OWN_STAGES.get(stage)
    row |= {f"params.{name}": value for name, value in run.data.params.items()}
    for name, value in run.data.metrics.items():
        if not ours:
            row[f"metrics.{name}"] = value
        elif name.startswith("final_"):  # results; the rest are curves
            row[f"metrics.{name.removeprefix('final_')}"] = value
    return row | {f"tags.{name}": value for name, value in run.data.tags.items() if name != "mlflow.note.content"}
