"""The large run's model in MLflow's registry: once, with what was forecast of it, and never in the way of the run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from scaling.forecast import Forecast
from scaling.run_spec import RunSpec
from sweeps.tracking.large_run import send_large_run
from sweeps.tracking.projection import MlflowProjection
from trainer.export.hugging_face import export
from trainer.run_folder import RunFolder

from ...faults.test_tracking_store import server
from ..large import Large
from ..projected import STUDY

# MLflow 3.17's own use of SQLAlchemy 2.1, and nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

NAME = f"scaling-{STUDY}"


class Sent:
    """What was said while the large run of a workspace was sent, and what MLflow then holds."""

    def __init__(self, large: Large) -> None:
        self.large, self.said = large, list[str]()

    def __call__(self) -> str | None:
        return send_large_run(
            self.large.workspace, STUDY, self.large.run.key, self.said.append, lambda what, share: None
        )

    def versions(self, uri: str | None = None) -> list[ModelVersion]:
        client = MlflowClient(tracking_uri=uri or self.large.uri)
        return list(client.search_model_versions(f"name = '{NAME}'"))

    def track_at(self, uri: str | None) -> None:
        file = self.large.workspace.study_folder(STUDY) / "study.yaml"
        study = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump(study | {"track": {"mlflow": uri}}))


@pytest.fixture
def send(large: Large) -> Sent:
    return Sent(large)


def files_of(version: ModelVersion) -> dict[str, bytes]:
    folder = Path(version.source.removeprefix("file://"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_registered_once_with_what_was_forecast_and_its_files_are_the_export(
    large: Large, send: Sent, tmp_path: Path
) -> None:
    scored = large.ended(tmp_path / "run")
    assert send() == send() == f"models:/{NAME}/1"
    assert send.said == []
    (version,) = send.versions()
    row = large.ledger.runs(STUDY, "final")[0]
    expected = {
        "scaling.study": STUDY,
        "scaling.run_key": large.run.key,
        "scaling.tokens": str(large.run.tokens),
        "scaling.loss_nats": str(row.loss),
        "scaling.forecast_loss": "5.0",
        "scaling.forecast_loss_high": "6.0",
        "scaling.forecast_relative_error": str(scored.outcome.relative_error),
        "scaling.forecast_outcome": "inside" if scored.outcome.inside else "outside",
    }
    assert expected.items() <= version.tags.items()
    assert f"loss {row.loss:.4f} nats a token; forecast 5.0000 [4.0000, 6.0000]" in version.description
    run = MlflowClient(tracking_uri=large.uri).get_run(version.run_id)
    assert (run.info.status, run.data.tags["scaling.run_key"]) == ("FINISHED", large.run.key)
    assert run.data.tags["scaling.checkpoints"] == large.workspace.run_folder(large.run.key).as_uri()
    assert (large.workspace.run_folder(large.run.key) / "run.json").is_file(), "the link leads to the run's folder"

    def refuse(message: str) -> None:
        raise AssertionError(message)

    export(RunFolder(tmp_path / "run").trained(), tmp_path / "exported", force=False, note=refuse)
    assert files_of(version) == {path.name: path.read_bytes() for path in (tmp_path / "exported").iterdir()}
    assert not list((tmp_path / "run").glob(".export*"))


def test_a_second_large_run_is_the_next_version(large: Large, send: Sent, tmp_path: Path) -> None:
    large.ended(tmp_path / "run")
    send()
    other = RunSpec.model_validate(large.run.model_dump() | {"seed": large.run.seed + 1})
    assert large.made.forecast is not None
    forecast = Forecast.model_validate(large.made.forecast.model_dump() | {"flops": 2e9})
    large.made = large.made.model_copy(update={"run": other, "run_key": other.key, "forecast": forecast})
    large.run = other
    large.ended(tmp_path / "other")
    assert send() == f"models:/{NAME}/2"
    assert {version.tags["scaling.run_key"] for version in send.versions()} >= {other.key}
    assert len(send.versions()) == 2


def test_another_store_gets_it_too_and_a_replay_adds_nothing(large: Large, send: Sent, tmp_path: Path) -> None:
    large.ended(tmp_path / "run")
    send()
    copy = large.workspace.tracking_uri("sqlite:///copy.db")
    for uri in (copy, copy, large.uri):
        artifacts, folder_of = large.workspace.artifacts_uri(uri), large.workspace.run_folder
        projection = MlflowProjection(large.ledger.url, uri, artifacts, STUDY, large.plan, folder_of)
        projection.sync(anew=True)
        projection.end("FINISHED")
        (version,) = send.versions(uri)
        assert files_of(version)["model.safetensors"]


def test_a_rung_is_no_model(large: Large, send: Sent, tmp_path: Path) -> None:
    large.made = large.made.model_copy(update={"stage": "rung"})
    large.ended(tmp_path / "run")
    assert send() is None and send.versions() == [] and send.said == []


def test_a_run_whose_weights_are_gone_is_sent_without_its_model_and_that_is_told(
    large: Large, send: Sent, tmp_path: Path
) -> None:
    large.ended(tmp_path / "run")
    for path in (tmp_path / "run").glob("step-*"):
        path.unlink()
    assert send() is None and send.versions() == []
    (said,) = send.said
    assert "its model is not registered in MLflow" in said and "holds no checkpoint" in said


def test_a_store_that_is_away_or_a_study_in_other_hands_is_one_line(large: Large, send: Sent, tmp_path: Path) -> None:
    large.ended(tmp_path / "run")
    with large.workspace.conducting(STUDY, lambda: None):
        assert send() is None
    assert "another process has the study in hand" in send.said[0]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    send.track_at(f"http://127.0.0.1:{port}")
    began = time.monotonic()
    assert send() is None
    assert time.monotonic() - began < 30
    assert len(send.said) == 2 and "\n" not in send.said[1] and "scaling track" in send.said[1]
    send.track_at(None)
    assert send() is None and len(send.said) == 2, "a study that tracks nowhere has nothing to tell"


@pytest.fixture
def patient() -> Iterator[None]:
    """The server's first answer takes longest."""
    before = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT")
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "60"
    yield
    if before is None:
        del os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    else:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_takes_it_and_one_without_a_registry_keeps_its_files(
    large: Large, send: Sent, tmp_path: Path, patient: Any
) -> None:
    large.ended(tmp_path / "run")
    # One each: what is left of the first server may still answer at its own.
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        port, with_registry = free.getsockname()[1], other.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    send.track_at(uri)
    with server(large, port, "--registry-store-uri", "nowhere://"):
        assert send() is None
        (said,) = send.said
        assert "the store has no model registry" in said
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(f"scaling/{STUDY}")
        (run,) = client.search_runs([experiment.experiment_id], "tags.scaling.stage = 'final'")
        assert run.info.status == "FINISHED"
        assert "model/model.safetensors" in {file.path for file in client.list_artifacts(run.info.run_id, "model")}
        client.delete_run(run.info.run_id)
    uri = f"http://127.0.0.1:{with_registry}"
    send.track_at(uri)
    with server(large, with_registry):
        assert send() == f"models:/{NAME}/1"
        (version,) = send.versions(uri)
        assert version.tags["scaling.loss_nats"] == str(large.ledger.runs(STUDY, "final")[0].loss)
    assert len(send.said) == 1
