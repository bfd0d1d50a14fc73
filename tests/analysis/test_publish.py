"""Publishing to a real MLflow store on SQLite."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.best_runs import best_at_each_budget
from analysis.description import Pages, description
from analysis.figure_data import loss_against_compute
from analysis.publish import lines, metrics, publish
from analysis.saved_views import saved_views
from analysis.study_view import StudyView
from scaling.errors import UserError
from scaling.fit import Fit


@dataclass(frozen=True)
class Published:
    client: MlflowClient
    uri: str
    run_id: str
    artifacts: Path


@pytest.fixture(scope="module")
def published(view: StudyView, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """The simulated study, published twice onto one run."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with warnings.catch_warnings():
        # Creating the store runs alembic's and SQLAlchemy's own deprecated calls.
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.create_experiment("study", artifact_location=(folder / "artifacts").as_uri())
        run_id = client.create_run(experiment).info.run_id
        for _ in range(2):
            publish(view, tracking_uri=uri, run_id=run_id)
    yield Published(client, uri, run_id, folder / "artifacts" / run_id / "artifacts")
    client._tracking_client.store.engine.dispose()


def test_a_reader_of_the_run_finds_every_file(published: Published) -> None:
    found = {
        path.relative_to(published.artifacts).as_posix() for path in published.artifacts.rglob("*") if path.is_file()
    }
    assert {"report.html", "curves.html", "observations.json", "observations.csv", "observations.parquet"} <= found
    assert "explorer.html" in found
    assert {"fit.json", "fit.yaml", "forecast.json", "outcome.json"} <= found
    assert {"recommendation.json", "recommendation.yaml"} <= found
    for name in ("loss_against_compute", "isoflop", "allocation", "predicted_actual"):
        assert {f"figures/{name}.png", f"figures/{name}.svg"} <= found


def test_publishing_twice_leaves_one_of_each(published: Published, view: StudyView) -> None:
    for name in metrics(view):
        assert len(published.client.get_metric_history(published.run_id, name)) == 1, name
    table = pd.read_json(published.artifacts / "observations.json", orient="split")
    assert len(table) == len(view.observations)
    logged = json.loads(published.client.get_run(published.run_id).data.tags["mlflow.loggedArtifacts"])
    assert logged == [{"path": "observations.json", "type": "table"}]


def test_the_published_fit_reads_back_as_the_same_fit(published: Published, view: StudyView) -> None:
    read = Fit.model_validate_json((published.artifacts / "fit.json").read_text())
    assert read.key == view.fit.key


def test_the_law_is_logged_with_its_bounds(published: Published, view: StudyView) -> None:
    logged = published.client.get_run(published.run_id).data.metrics
    alpha = view.fit.parametric.parameters["alpha"]
    assert (logged["law_alpha"], logged["law_alpha_low"], logged["law_alpha_high"]) == (
        alpha.estimate, alpha.low, alpha.high,
    )  # fmt: skip
    assert logged["forecast_relative_error"] == view.outcome.relative_error  # type: ignore[union-attr]


def test_the_description_states_verdict_forecast_and_configuration(published: Published, view: StudyView) -> None:
    run = published.client.get_run(published.run_id)
    text = run.data.tags["mlflow.note.content"]
    assert text == description(view, Pages(run.info.experiment_id, run.info.run_id))
    assert "Illustration, not advice" in text
    assert "A forecast registered before its run" in text
    assert "| learning rate |" in text


def test_the_first_lines_that_mlflow_shows_hold_the_verdict(published: Published, view: StudyView) -> None:
    text = published.client.get_run(published.run_id).data.tags["mlflow.note.content"]
    assert text.startswith("**With ") and text.index("A forecast registered") < text.index(view.question)
    metrics_listed = list(metrics(view))
    assert metrics_listed[0] == "recommended_params"
    table = json.loads((published.artifacts / "observations.json").read_text())
    assert table["columns"][:2] == ["label", "loss_nats"], "MLflow compares the second by the first"


def test_views_of_the_runs_are_saved_in_the_experiment_and_linked(published: Published) -> None:
    """Packed as MLflow's own page packs them: base64 of zlib after ``deflate;``."""
    run = published.client.get_run(published.run_id)
    experiment = published.client.get_experiment(run.info.experiment_id)
    stored = {name.removeprefix("mlflow.sharedViewState."): value for name, value in experiment.tags.items()}
    for saved in saved_views():
        value = json.loads(stored[saved.key])
        assert value["name"] == saved.name
        state = json.loads(zlib.decompress(base64.b64decode(value["state"].removeprefix("deflate;"))))
        published.client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[state["orderByKey"]])
        assert f"({saved.address(experiment.experiment_id)})" in run.data.tags["mlflow.note.content"]


def test_studies_are_found_by_what_came_of_them(published: Published, view: StudyView) -> None:
    client, experiment = published.client, published.client.get_run(published.run_id).info.experiment_id
    for where in (
        "tags.scaling.verdict = 'illustration'",
        f"tags.scaling.forecast_outcome = '{'inside' if view.outcome and view.outcome.inside else 'outside'}'",
        f"tags.scaling.fit_key = '{view.fit.key}'",
        "tags.scaling.question LIKE '%64 H100s%'",
    ):
        found = client.search_runs([experiment], filter_string=where)
        assert published.run_id in {run.info.run_id for run in found}, where


def test_the_frontier_is_a_series_over_compute_with_its_bounds(published: Published, view: StudyView) -> None:
    frontier = loss_against_compute(view).frontier
    assert frontier is not None
    for name, values in (
        ("flops", frontier.x), ("loss", frontier.estimate), ("loss_low", frontier.low), ("loss_high", frontier.high),
    ):  # fmt: skip
        history = published.client.get_metric_history(published.run_id, f"frontier/{name}")
        assert [point.value for point in history] == values.tolist(), "once, though it was published twice"
        assert [point.step for point in history] == [round(1000 * math.log10(flops)) for flops in frontier.x]
    assert lines(view)["optimum"].keys() >= {"flops", "params", "params_low", "tokens_high"}


def test_a_frontier_that_changed_is_another_series_and_coming_back_is_none(
    published: Published, make_view: Callable[..., StudyView], view: StudyView, fit: Fit, tmp_path: Path
) -> None:
    client = published.client
    run_id = client.create_run(client.get_run(published.run_id).info.experiment_id).info.run_id
    (tmp_path / "figures").mkdir()
    for name in ("figures/drawn.png", "report.html", "curves.html", "explorer.html"):
        (tmp_path / name).write_text("as drawn")
    beyond = fit.model_copy(update={"fitted_range": fit.fitted_range.model_copy(update={"flops": (1e10, 1e12)})})
    for fitted in (fit, beyond, fit):
        publish(make_view(fit=fitted), tracking_uri=published.uri, run_id=run_id, folder=tmp_path)
    assert len({len(client.get_metric_history(run_id, f"frontier{n}/loss")) for n in ("", "-2")}) == 1
    assert not client.get_metric_history(run_id, "frontier-3/loss")


def test_the_best_run_at_each_budget_is_marked_and_linked(
    published: Published, make_view: Callable[..., StudyView], tmp_path: Path
) -> None:
    client = published.client
    experiment = client.get_run(published.run_id).info.experiment_id
    view = make_view(name="marked")
    best = [run.run_key for run in best_at_each_budget(view)]
    assert len(best) == 4, "one a budget"
    rows = view.observations[view.observations["role"] == "fit"]
    assert set(best) == set(rows.loc[rows.groupby(rows["flops_6nd"].round(-9))["loss_nats"].idxmin(), "run_key"])
    tags = {"scaling.study": "marked", "scaling.kind": "run"}
    ids = {
        key: client.create_run(experiment, tags=tags | {"scaling.run_key": key}).info.run_id for key in rows["run_key"]
    }
    once_best = next(key for key in ids if key not in best)
    client.set_tag(ids[once_best], "scaling.best_of_budget", "true")
    parent = client.create_run(experiment, tags={"scaling.study": "marked", "scaling.kind": "study"}).info.run_id
    (tmp_path / "figures").mkdir()
    for name in ("figures/drawn.png", "report.html", "curves.html", "explorer.html"):
        (tmp_path / name).write_text("as drawn")
    publish(view, tracking_uri=published.uri, run_id=parent, folder=tmp_path)
    found = client.search_runs([experiment], filter_string="tags.scaling.best_of_budget = 'true'")
    assert {run.info.run_id for run in found} == {ids[key] for key in best}
    text = client.get_run(parent).data.tags["mlflow.note.content"]
    assert all(f"(#/experiments/{experiment}/runs/{ids[key]})" in text for key in best)
    assert f"(#/experiments/{experiment}/runs/{parent}/artifacts/report.html)" in text


def test_what_was_written_is_sent_as_it_stands_and_changed_numbers_anew(
    published: Published, view: StudyView, tmp_path: Path
) -> None:
    assert view.outcome is not None
    (tmp_path / "figures").mkdir()
    for name in ("figures/mine.png", "report.html", "curves.html", "explorer.html"):
        (tmp_path / name).write_text("as written")
    client = published.client
    run_id = client.create_run(client.get_run(published.run_id).info.experiment_id).info.run_id
    for error in (0.01, 0.02):
        outcome = view.outcome.model_copy(update={"relative_error": error})
        publish(dataclasses.replace(view, outcome=outcome), tracking_uri=published.uri, run_id=run_id, folder=tmp_path)
    assert client.get_run(run_id).data.metrics["forecast_relative_error"] == 0.02
    folder = published.artifacts.parents[1] / run_id / "artifacts"
    assert (folder / "report.html").read_text() == "as written"
    assert [path.name for path in (folder / "figures").iterdir()] == ["mine.png"]


def test_a_name_cannot_put_html_into_the_description(make_view: Callable[..., StudyView]) -> None:
    assert "<script" not in description(make_view(name="<script>alert(1)</script>"))


def test_a_missing_file_is_named(view: StudyView, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.txt"):
        publish(view, tracking_uri="sqlite:///unused.db", run_id="none", files=[tmp_path / "gone.txt"])
