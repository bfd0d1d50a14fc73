"""An MLflow experiment that other software logged, by the fluent API and in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from analysis.readers.logged import Asked, LoggedRuns
from analysis.readers.mlflow_runs import read_experiment
from scaling.errors import UserError
from scaling.table import read_table

from .conftest import Trained

# MLflow 3.17's own use of SQLAlchemy 2.1, and nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

OTHER_SOFTWARE = """
import json, sys, mlflow
runs = json.load(sys.stdin)
mlflow.set_experiment("ladder")
by_size = {}
for run in runs:
    by_size.setdefault(run["params"], []).append(run)
for size, runs in by_size.items():
    with mlflow.start_run(run_name=f"size {size}"):
        mlflow.set_tag("team", "pretraining")
        for run in runs:
            with mlflow.start_run(run_name=f"{size} x {run['tokens']}", nested=True):
                mlflow.log_params({"n_params": size, "learning_rate": run["lr"], "budget_tokens": run["tokens"]})
                for step, loss in enumerate(run["losses"]):
                    mlflow.log_metrics({"eval/loss": loss, "train/loss": loss - 0.1}, step=step)
                mlflow.log_metric("tokens", run["tokens"], step=3)
try:
    with mlflow.start_run(run_name="crashed"):
        mlflow.log_params({"n_params": 3, "budget_tokens": 4})
        mlflow.log_metrics({"eval/loss": 9.0, "tokens": 4})
        raise RuntimeError
except RuntimeError:
    pass
mlflow.set_experiment("another")
"""


def log_elsewhere(trained: list[Trained], uri: str, folder: Path, **environment: str) -> None:
    runs = [{"params": t.params, "tokens": t.tokens, "lr": t.lr, "losses": t.losses} for t in trained]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OTHER_SOFTWARE], input=json.dumps(runs), cwd=folder, text=True,
        capture_output=True, env=os.environ | {"MLFLOW_TRACKING_URI": uri, **environment}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(trained: list[Trained]) -> list[Trained]:
    """Eight of them: the fluent API takes its time."""
    return trained[::3]


@pytest.fixture(scope="module")
def uri(trained: list[Trained], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    log_elsewhere(trained, uri, folder)
    yield uri
    MlflowClient(tracking_uri=uri)._tracking_client.store.engine.dispose()


@pytest.fixture(scope="module")
def logged(uri: str) -> LoggedRuns:
    return read_experiment("ladder", Asked(tracking_uri=uri))


def test_its_finished_runs_are_a_table_without_a_word_about_its_columns(
    logged: LoggedRuns, trained: list[Trained]
) -> None:
    columns = logged.columns_for({})
    assert columns == {"params": "params.n_params", "tokens": "metrics.tokens", "loss": "metrics.eval/loss"}
    runs = read_table(logged.table(columns), columns=columns)
    told = sorted(zip(runs.params, runs.tokens, runs.loss, strict=True))
    assert told == sorted((run.params, run.tokens, run.losses[-1]) for run in trained)
    assert logged.left_out == 1
    assert runs.counts.rows == len(trained), "the parents of nested runs are no rows"


def test_a_column_may_be_written_with_its_kind_or_without(logged: LoggedRuns) -> None:
    asked = {"params": "n_params", "tokens": "params.budget_tokens", "loss": "train/loss"}
    assert logged.columns_for(asked) == {
        "params": "params.n_params", "tokens": "params.budget_tokens", "loss": "metrics.train/loss",
    }  # fmt: skip


def test_the_least_loss_is_fetched_where_it_is_asked_for(uri: str, trained: list[Trained]) -> None:
    asked = Asked(frozenset({"metrics.eval/loss.min"}), tracking_uri=uri)
    logged = read_experiment("ladder", asked)
    columns = logged.columns_for({"loss": "metrics.eval/loss.min"})
    runs = read_table(logged.table(columns), columns=columns)
    assert sorted(runs.loss) == sorted(min(run.losses) for run in trained)
    assert "metrics.train/loss.min" not in logged.frame


def test_unfinished_runs_are_read_where_they_are_asked_for(uri: str, trained: list[Trained]) -> None:
    logged = read_experiment("ladder", Asked(unfinished=True, tracking_uri=uri))
    columns = logged.columns_for({})
    assert read_table(logged.table(columns), columns=columns).counts.used == len(trained) + 1
    assert logged.left_out == 0


def test_a_column_that_is_not_there_is_answered_with_those_that_are(logged: LoggedRuns) -> None:
    with pytest.raises(UserError, match=r"size names no column.*params\.n_params.*metrics\.eval/loss"):
        logged.columns_for({"params": "size"})


def test_an_experiment_is_found_by_its_id_and_missed_by_name_with_those_there_are(uri: str) -> None:
    experiment = MlflowClient(tracking_uri=uri).get_experiment_by_name("ladder")
    assert experiment is not None
    assert len(read_experiment(experiment.experiment_id, Asked(tracking_uri=uri)).frame) == 12
    with pytest.raises(UserError, match=r"no experiment 'lader'; it has .*ladder"):
        read_experiment("lader", Asked(tracking_uri=uri))


def test_an_experiment_without_runs_to_fit_says_what_it_has_not(uri: str) -> None:
    with pytest.raises(UserError, match="MLflow experiment another: no column for params, tokens, loss"):
        read_experiment("another", Asked(tracking_uri=uri)).columns_for({})


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_experiment("ladder", Asked(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
    assert not list(tmp_path.iterdir())


def test_a_server_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 can't be read"):
        read_experiment("ladder", Asked(tracking_uri="http://user:secret@127.0.0.1:9"))


def test_without_a_store_the_remedy_is_said_and_the_usual_ones_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        read_experiment("ladder", Asked())
    (tmp_path / "mlflow.db").symlink_to(uri.removeprefix("sqlite:///"))
    assert len(read_experiment("ladder", Asked()).frame) == 12


def test_a_store_of_plain_files_is_read_too(trained: list[Trained], tmp_path: Path) -> None:
    folder = tmp_path / "mlruns"
    log_elsewhere(trained[:2], folder.as_uri(), tmp_path, MLFLOW_ALLOW_FILE_STORE="true")
    logged = read_experiment("ladder", Asked(tracking_uri=folder.as_uri()))
    assert len(logged.table(logged.columns_for({}))) == 2
