"""A study's answers onto its MLflow run: figures, page, report, tables, fit, recommendation, numbers and a description.

Everything goes through one ``MlflowClient`` with its own tracking URI, so that no global state is set. Publishing twice
leaves one of each: files are replaced, tags set again, and a metric is logged only where its value is another. A line
that has changed gets a new name, for MLflow takes no point back.
Plotly's page is logged as a file, because MLflow's own ``log_figure`` writes a page that needs the network.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag

from analysis.best_runs import best_at_each_budget
from analysis.description import Pages, description
from analysis.explorer import write_explorer
from analysis.figure_data import Floats, allocation, loss_against_compute
from analysis.figures.gallery import draw_all
from analysis.interactive import write_page
from analysis.recommendation_yaml import recommendation_yaml
from analysis.report import write_report
from analysis.saved_views import saved_views
from analysis.study_view import StudyView
from analysis.verdict import status, verdict
from scaling.errors import UserError
from scaling.record import Interval
from sweeps.tracking.store import active_runs
from trainer.whole_file import write_whole

__all__ = ["lines", "metrics", "publish"]

BEST_OF_BUDGET = "scaling.best_of_budget"
_LOGGED_ARTIFACTS = "mlflow.loggedArtifacts"
_TABLE = "observations.json"
_FIRST_COLUMNS = ("label", "loss_nats", "params_total", "tokens", "flops_exact", "learning_rate", "role", "status")
"""Of the table that MLflow shows: it compares the second column by the first."""
_STEPS_A_DECADE = 1000


def publish(
    view: StudyView, *, tracking_uri: str, run_id: str, folder: Path | None = None, files: Sequence[Path] = ()
) -> None:
    """Log ``view`` onto the run ``run_id`` of the MLflow store at ``tracking_uri``.

    What was already written to ``folder`` (``figures/``, ``report.html``, ``curves.html``, ``explorer.html``) is sent
    as it stands, and the rest is made; ``files`` go beside. Raises ``UserError`` where a file of ``files`` does not
    exist.
    """
    absent = [str(path) for path in files if not path.is_file()]
    if absent:
        raise UserError(f"files to publish do not exist: {', '.join(absent)}; write them first or leave them out")
    client = MlflowClient(tracking_uri=tracking_uri)
    with tempfile.TemporaryDirectory(prefix="publish-") as temporary:
        stage = Path(temporary)
        for path in (*_pictures(view, stage, folder), *_tables(view, stage), *_records(view, stage), *files):
            inside = path.parent.name if path.parent.name == "figures" else None
            client.log_artifact(run_id, str(path), artifact_path=inside)
    _log_metrics(client, run_id, metrics(view))
    groups = {name: _log_line(client, run_id, name, line) for name, line in lines(view).items()}
    parent = client.get_run(run_id)
    children = _children(client, parent)
    _mark_the_best(client, view, children)
    for saved in saved_views(**groups):
        client.set_experiment_tag(parent.info.experiment_id, *saved.tag())
    _set_tags(client, parent, view, children)


def _pictures(view: StudyView, stage: Path, folder: Path | None) -> Iterable[Path]:
    """Figures, interactive page and report: those of ``folder`` where they are, else written to ``stage``."""
    written = sorted((folder / "figures").glob("*.*")) if folder is not None else []
    yield from (path for path in written if path.suffix in (".png", ".svg"))
    if not written:
        yield from draw_all(view, stage / "figures")
    for name, write in (("curves.html", write_page), ("report.html", write_report)):
        known = folder / name if folder is not None else None
        yield known if known is not None and known.is_file() else write(view, stage / name)
    explorer = folder / "explorer.html" if folder is not None else None
    if explorer is None or not explorer.is_file():
        explorer = write_explorer(view, stage / "explorer.html")
    if explorer is not None:
        yield explorer


def _tables(view: StudyView, stage: Path) -> Iterable[Path]:
    """The observations as MLflow shows tables (JSON, split), as CSV and as Parquet."""
    rows = view.observations
    shown = rows[[*_FIRST_COLUMNS, *(name for name in rows.columns if name not in _FIRST_COLUMNS)]]
    write_whole(stage / _TABLE, shown.to_json(orient="split", index=False))
    write_whole(stage / "observations.csv", rows.to_csv(index=False))
    rows.to_parquet(stage / "observations.parquet", index=False)
    return [stage / _TABLE, stage / "observations.csv", stage / "observations.parquet"]


def _records(view: StudyView, stage: Path) -> Iterable[Path]:
    """Fit, forecast, outcome and recommendation, each where the study has it."""
    records = {
        "fit": view.fit,
        "forecast": view.forecast,
        "outcome": view.outcome,
        "recommendation": view.recommendation,
    }
    for name, record in records.items():
        if record is not None:
            write_whole(stage / f"{name}.json", record.model_dump_json(indent=1))
            yield stage / f"{name}.json"
    # Without the draws, which are most of fit.json and nothing to read.
    write_whole(stage / "fit.yaml", yaml.safe_dump(view.fit.answer(), sort_keys=False, allow_unicode=True))
    yield stage / "fit.yaml"
    if view.recommendation is not None:
        write_whole(stage / "recommendation.yaml", recommendation_yaml(view.recommendation))
        yield stage / "recommendation.yaml"


def _bounds(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    values = {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: value for key, value in values.items() if value is not None}


def metrics(view: StudyView) -> dict[str, float]:
    """What is recommended, forecast against outcome, exponents and the law's constants as numbers, each with its bounds
    where it has them, in the order in which MLflow lists them."""
    fit, made, found = view.fit, view.recommendation, dict[str, float]()
    if made is not None:
        quantities = {
            "params": made.params,
            "tokens": made.tokens,
            "loss": made.loss,
            "learning_rate": made.learning_rate,
        }
        for name, quantity in quantities.items():
            found |= _bounds(f"recommended_{name}", quantity)
        found["recommended_flops"] = made.flops
    if view.forecast is not None:
        found |= _bounds("forecast_loss", view.forecast.loss)
    if view.outcome is not None:
        found |= {"outcome_loss": view.outcome.loss, "forecast_relative_error": view.outcome.relative_error}
        found["forecast_inside"] = float(view.outcome.inside)
    if view.forecast is not None:
        found["forecast_flops"] = view.forecast.flops
    for estimator, exponents in (("parametric", fit.parametric), ("isoflop", fit.isoflop)):
        found |= _bounds(f"{estimator}_n_exponent", exponents.n_exponent)
        found |= _bounds(f"{estimator}_d_exponent", exponents.d_exponent)
    for name, interval in fit.parametric.parameters.items():
        found |= _bounds(f"law_{name}", interval)
    return found | {"observations_used": float(fit.observations.used)}


def lines(view: StudyView) -> dict[str, dict[str, Floats]]:
    """What the study says at each compute, as series for MLflow's chart, whose step is 1000 log10 of the FLOPs.

    ``frontier``: the least loss; ``optimum``: N* and D*; with their bounds, each where the fit has it.
    """
    found = {}
    frontier = view.once(loss_against_compute).frontier
    if frontier is not None:
        found["frontier"] = {
            "flops": frontier.x,
            "loss": frontier.estimate,
            "loss_low": frontier.low,
            "loss_high": frontier.high,
        }
    placed = view.once(allocation)
    if placed is not None:
        params, tokens = placed.lines[0].params, placed.lines[0].tokens
        found["optimum"] = {"flops": params.x}
        for name, band in (("params", params), ("tokens", tokens)):
            found["optimum"] |= {name: band.estimate, f"{name}_low": band.low, f"{name}_high": band.high}
    return found


def _log_metrics(client: MlflowClient, run_id: str, wanted: dict[str, float]) -> None:
    known = client.get_run(run_id).data.metrics
    now = int(time.time() * 1000)
    changed = [Metric(name, value, now, 0) for name, value in wanted.items() if known.get(name) != value]
    if changed:
        client.log_batch(run_id, metrics=changed)


def _log_line(client: MlflowClient, run_id: str, name: str, line: Mapping[str, Floats]) -> str:
    """Under ``NAME/…``, or ``NAME-2/…`` and so on where an earlier fit's line has the name; which, is returned."""
    wanted = {key: values[np.isfinite(values)] for key, values in line.items() if np.isfinite(values).any()}
    for number in itertools.count(1):
        group = name if number == 1 else f"{name}-{number}"
        known = {key: client.get_metric_history(run_id, f"{group}/{key}") for key in wanted}
        if not any(known.values()):
            break
        if all([point.value for point in known[key]] == values.tolist() for key, values in wanted.items()):
            return group
    now = int(time.time() * 1000)
    # The chart's own axis is the step: so it is one of log-spaced compute, and 12000 are 1e12 FLOPs.
    steps = np.round(_STEPS_A_DECADE * np.log10(line["flops"])).astype(int).tolist()
    points = [
        Metric(f"{group}/{key}", float(value), now, step)
        for key, values in line.items()
        for step, value in zip(steps, values, strict=True)
        if np.isfinite(value)
    ]
    client.log_batch(run_id, metrics=points)
    return group


def _children(client: MlflowClient, parent: Run) -> dict[str, Run]:
    """The study's runs in MLflow by run key."""
    study = parent.data.tags.get("scaling.study")
    runs = active_runs(client, parent.info.experiment_id, "tags.scaling.kind != 'study'") if study else ()
    return {
        run.data.tags["scaling.run_key"]: run
        for run in runs
        if run.data.tags.get("scaling.study") == study and "scaling.run_key" in run.data.tags
    }


def _mark_the_best(client: MlflowClient, view: StudyView, children: Mapping[str, Run]) -> None:
    best = {run.run_key for run in best_at_each_budget(view)}
    for key, run in children.items():
        marked = run.data.tags.get(BEST_OF_BUDGET)
        if key in best and marked is None:
            client.set_tag(run.info.run_id, BEST_OF_BUDGET, "true")
        elif key not in best and marked is not None:
            client.delete_tag(run.info.run_id, BEST_OF_BUDGET)


def _set_tags(client: MlflowClient, parent: Run, view: StudyView, children: Mapping[str, Run]) -> None:
    """Description, what studies are filtered by, and the mark by which MLflow shows a table as one."""
    logged = json.loads(parent.data.tags.get(_LOGGED_ARTIFACTS, "[]"))
    table = {"path": _TABLE, "type": "table"}
    pages = Pages(
        parent.info.experiment_id, parent.info.run_id, {key: run.info.run_id for key, run in children.items()}
    )
    commits = {run.data.tags.get("mlflow.source.git.commit") for run in children.values()} - {None}
    tags = {
        "mlflow.note.content": description(view, pages),
        _LOGGED_ARTIFACTS: json.dumps(logged if table in logged else [*logged, table]),
        "scaling.study": view.name,
        "scaling.question": view.question,
        "scaling.answer": verdict(view),
        "scaling.verdict": status(view),
        "scaling.fit_key": view.fit.key,
    }
    if view.forecast is not None:
        tags["scaling.forecast_key"] = view.forecast.key
        tags["scaling.forecast_outcome"] = "open"
    if view.outcome is not None:
        tags["scaling.forecast_outcome"] = "inside" if view.outcome.inside else "outside"
    if len(commits) == 1:  # runs of several are told apart by their own tags
        tags["mlflow.source.git.commit"] = str(commits.pop())
    client.log_batch(parent.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
