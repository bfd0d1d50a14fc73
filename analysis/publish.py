"""A study's answers onto its MLflow run: figures, page, report, tables, fit, recommendation, numbers and a description.

Everything goes through one ``MlflowClient`` with its own tracking URI, so that no global state is set. Publishing twice
leaves one of each: files are replaced, tags set again, and a metric is logged only where its value is another.
Plotly's page is logged as a file, because MLflow's own ``log_figure`` writes a page that needs the network.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from analysis.figures.gallery import draw_all
from analysis.interactive import write_page
from analysis.recommendation_yaml import recommendation_yaml
from analysis.report import write_report
from analysis.study_view import StudyView
from analysis.verdict import forecast_sentence, loss_interval, verdict
from scaling.errors import UserError
from scaling.quantity import format_count, format_flops, format_interval
from scaling.record import Interval
from trainer.whole_file import write_whole

__all__ = ["description", "metrics", "publish"]

_LOGGED_ARTIFACTS = "mlflow.loggedArtifacts"
_TABLE = "observations.json"


def publish(
    view: StudyView, *, tracking_uri: str, run_id: str, folder: Path | None = None, files: Sequence[Path] = ()
) -> None:
    """Log ``view`` onto the run ``run_id`` of the MLflow store at ``tracking_uri``.

    What was already written to ``folder`` (``figures/``, ``report.html``, ``curves.html``) is sent as it stands, and
    the rest is made; ``files`` go beside. Raises ``UserError`` where a file of ``files`` does not exist.
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
    _set_tags(client, run_id, view)


def _pictures(view: StudyView, stage: Path, folder: Path | None) -> Iterable[Path]:
    """Figures, interactive page and report: those of ``folder`` where they are, else written to ``stage``."""
    written = sorted((folder / "figures").glob("*.*")) if folder is not None else []
    yield from (path for path in written if path.suffix in (".png", ".svg"))
    if not written:
        yield from draw_all(view, stage / "figures")
    for name, write in (("curves.html", write_page), ("report.html", write_report)):
        known = folder / name if folder is not None else None
        yield known if known is not None and known.is_file() else write(view, stage / name)


def _tables(view: StudyView, stage: Path) -> Iterable[Path]:
    """The observations as MLflow shows tables (JSON, split), as CSV and as Parquet."""
    rows = view.observations
    write_whole(stage / _TABLE, rows.to_json(orient="split", index=False))
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
    if view.recommendation is not None:
        write_whole(stage / "recommendation.yaml", recommendation_yaml(view.recommendation))
        yield stage / "recommendation.yaml"


def _bounds(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    values = {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: value for key, value in values.items() if value is not None}


def metrics(view: StudyView) -> dict[str, float]:
    """Law constants, exponents, forecast and recommendation as numbers, each with its bounds where it has them."""
    fit, found = view.fit, {"observations_used": float(view.fit.observations.used)}
    for name, interval in fit.parametric.parameters.items():
        found |= _bounds(f"law_{name}", interval)
    for estimator, exponents in (("parametric", fit.parametric), ("isoflop", fit.isoflop)):
        found |= _bounds(f"{estimator}_n_exponent", exponents.n_exponent)
        found |= _bounds(f"{estimator}_d_exponent", exponents.d_exponent)
    if view.forecast is not None:
        found |= {"forecast_flops": view.forecast.flops} | _bounds("forecast_loss", view.forecast.loss)
    if view.outcome is not None:
        found |= {"outcome_loss": view.outcome.loss, "forecast_relative_error": view.outcome.relative_error}
        found["forecast_inside"] = float(view.outcome.inside)
    made = view.recommendation
    if made is not None:
        found["recommended_flops"] = made.flops
        quantities = {
            "params": made.params,
            "tokens": made.tokens,
            "loss": made.loss,
            "learning_rate": made.learning_rate,
        }
        for name, quantity in quantities.items():
            found |= _bounds(f"recommended_{name}", quantity)
    return found


def description(view: StudyView) -> str:
    """The run's description in Markdown: verdict, forecast against outcome, configuration."""
    lines = [f"**{_plain(view.name)}** {_plain(view.question)}", ""]
    made = view.recommendation
    if made is not None and made.illustration:
        orders = f"{made.extrapolation_orders:.1f}"
        lines += [f"**Illustration, not advice**: {orders} orders of magnitude beyond the fitted runs.", ""]
    lines += [_plain(verdict(view)), ""]
    record = forecast_sentence(view)
    if record is not None:
        lines += [record, ""]
    if made is not None:
        shape, loss = made.shape, made.loss
        rows = {
            "compute": format_flops(made.flops),
            "parameters": format_interval(made.params),
            "tokens": format_interval(made.tokens),
            "loss": f"{loss_interval(loss)} nats per token" if loss else "no law to predict it",
            "shape": f"{shape.layers} layers × {shape.width}, {shape.heads} heads, vocabulary {shape.vocabulary:,}",
            "learning rate": f"{made.learning_rate.estimate:.2g}",
            "batch": f"{format_count(made.global_batch_tokens)} tokens",
        }
        lines += ["| recommended | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]
    lines.append(f"Intervals at {view.fit.level:.0%}. Open `report.html` and `curves.html` under Artifacts.")
    if view.reproduce_command:
        lines += ["", f"Reproduce: `{view.reproduce_command}`"]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """``text`` without the characters that Markdown or HTML would act on."""
    for character in "\\`*_[]|#":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _log_metrics(client: MlflowClient, run_id: str, wanted: dict[str, float]) -> None:
    known = client.get_run(run_id).data.metrics
    now = int(time.time() * 1000)
    changed = [Metric(name, value, now, 0) for name, value in wanted.items() if known.get(name) != value]
    if changed:
        client.log_batch(run_id, metrics=changed)


def _set_tags(client: MlflowClient, run_id: str, view: StudyView) -> None:
    """Description, study, keys of fit and forecast, and the mark by which MLflow shows a table as one."""
    logged = json.loads(client.get_run(run_id).data.tags.get(_LOGGED_ARTIFACTS, "[]"))
    table = {"path": _TABLE, "type": "table"}
    tags = {
        "mlflow.note.content": description(view),
        _LOGGED_ARTIFACTS: json.dumps(logged if table in logged else [*logged, table]),
        "scaling.study": view.name,
        "verdict": verdict(view),
        "fit_key": view.fit.key,
    }
    if view.forecast is not None:
        tags["forecast_key"] = view.forecast.key
    if view.recommendation is not None:
        tags["illustration"] = str(view.recommendation.illustration).lower()
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
