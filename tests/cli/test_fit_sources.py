"""``scaling fit`` of runs that other tools logged, by real processes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from scaling.simulation import IsoflopDesign, simulate_isoflop

from .conftest import scaling

BESIROGLU = [482.01, 2085.43, 1.81686, 0.34781, 0.36585]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return simulate_isoflop(np.array(BESIROGLU), IsoflopDesign(4, 5, 1e19), 0.003, np.random.default_rng(0))


@pytest.fixture(scope="module")
def from_table(runs: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The exponent that the plain table gives."""
    folder = tmp_path_factory.mktemp("table")
    runs.to_csv(folder / "runs.csv", index=False)
    done = scaling("fit", "runs.csv", "--flops-convention", "6nd", "--bootstrap", "0", "--json", cwd=folder)
    return float(json.loads(done.stdout)["parametric"]["n_exponent"]["estimate"])


def test_an_mlflow_experiment_gives_the_fit_of_its_table(
    runs: pd.DataFrame, from_table: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.create_experiment("ladder", artifact_location=tmp_path.as_uri())
        for row in runs.itertuples():
            run = client.create_run(experiment).info.run_id
            client.log_batch(
                run,
                params=[Param("n_params", repr(row.params))],
                metrics=[Metric("tokens", row.tokens, 1, 1), Metric("val/loss", row.loss, 1, 1)],
            )
            client.set_terminated(run)
        client._tracking_client.store.engine.dispose()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = scaling("fit", "mlflow:ladder", "--bootstrap", "0", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fitted = json.loads(done.stdout)
    assert fitted["observations"]["used"] == len(runs)
    assert fitted["parametric"]["n_exponent"]["estimate"] == pytest.approx(from_table, rel=1e-6)
    assert "params = params.n_params, tokens = metrics.tokens, loss = metrics.val/loss" in done.stderr

    missing = scaling("fit", "mlflow:ladder", "--columns", "params=size", cwd=tmp_path)
    assert missing.returncode == 2 and missing.stdout == ""
    assert missing.stderr.strip().endswith(
        "have run_id, name, status, params.n_params, metrics.tokens, metrics.val/loss, tags.mlflow.runName"
    )
    assert len(missing.stderr.strip().splitlines()) == 1


def test_an_optuna_study_gives_the_fit_of_its_table(runs: pd.DataFrame, from_table: float, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "trials.log")))
    study = optuna.create_study(storage=storage, study_name="sizes")
    space = {"n_params": optuna.distributions.FloatDistribution(1, 1e12)}
    for row in runs.itertuples():
        study.add_trial(
            optuna.trial.create_trial(
                params={"n_params": row.params}, distributions=space, value=row.loss, user_attrs={"tokens": row.tokens}
            )
        )
    done = scaling("fit", "optuna:trials.log#sizes", "--columns", "loss=value", "--bootstrap", "0", "--json",
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parametric"]["n_exponent"]["estimate"] == pytest.approx(from_table, rel=1e-6)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("wandbe:runs.csv", "no source wandbe: known are a table, mlflow:EXPERIMENT"),
        ("tensorboard:", "names nothing: write tensorboard:FOLDER"),
        ("runs.csv", "runs.csv is not a file"),
    ],
)
def test_a_source_that_is_none_is_one_line(source: str, told: str, tmp_path: Path) -> None:
    done = scaling("fit", source, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
