"""Publishing to a real MLflow store on SQLite."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from analysis.publish import description, metrics, publish
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
    assert {"fit.json", "forecast.json", "outcome.json", "recommendation.json", "recommendation.yaml"} <= found
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
    text = published.client.get_run(published.run_id).data.tags["mlflow.note.content"]
    assert text == description(view)
    assert "Illustration, not advice" in text
    assert "A forecast registered before its run" in text
    assert "| learning rate |" in text


def test_what_was_written_is_sent_as_it_stands_and_changed_numbers_anew(
    published: Published, view: StudyView, tmp_path: Path
) -> None:
    assert view.outcome is not None
    (tmp_path / "figures").mkdir()
    for name in ("figures/mine.png", "report.html", "curves.html"):
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
