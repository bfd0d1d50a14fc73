"""Experiments that this software made read back as the study's own table, and stores of many pages read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from analysis.readers.logged import Asked
from analysis.readers.mlflow_runs import read_experiment
from scaling.table import read_table
from sweeps.observations import observations
from sweeps.tracking.projection import MlflowProjection

from ...sweeps.projected import RESULT, STUDY, Projected, frozen_study
from ...sweeps.tracking.test_found_by_search import planned

# MLflow 3.17's own use of SQLAlchemy 2.1, and nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from ...sweeps.conftest import Silent, write_text

    folder = tmp_path_factory.mktemp("frozen")
    return frozen_study(write_text(folder / "text"), folder / "workspace", Silent())


def test_a_study_s_experiment_reads_back_as_its_own_table(frozen: Any, tmp_path: Path) -> None:
    projected = Projected(*frozen, tmp_path / "workspace")
    ledger, sizes = projected.ledger, (2e4, 3e4, 5e4)
    ledger.add(STUDY, [planned("llama", budget, size) for budget in (1e10, 2e10, 4e10) for size in sizes])
    while leased := ledger.lease(STUDY, "sweep", projected.owner):
        loss = 3.0 + 1e4 / leased.tokens + leased.seed / 100
        point = {"step": 1, "tokens": leased.tokens, "flops": 1e9, "name": "held_out_loss", "value": loss}
        ledger.add_points(leased.key, [point])
        result = RESULT | {"loss_nats": loss, "numerics": "by hand"}
        ledger.finish(leased.key, projected.owner, "finished", result)
    artifacts = projected.workspace.artifacts_uri(projected.uri)
    MlflowProjection(ledger.url, projected.uri, artifacts, STUDY, projected.plan).sync()

    logged = read_experiment(f"scaling/{STUDY}", Asked(tracking_uri=projected.uri))
    columns = logged.columns_for({})
    frame = logged.table(columns)
    read, meant = read_table(frame, columns=columns), observations(ledger, STUDY, projected.plan)
    assert read.counts.used == len(meant) == 13
    names = ["params_total", "tokens", "loss_nats"]
    told = np.column_stack([read.params, read.tokens, read.loss])
    wanted = meant[names].to_numpy(float)
    order = np.lexsort(wanted.T), np.lexsort(told.T)
    np.testing.assert_allclose(told[order[1]], wanted[order[0]], rtol=1e-12)
    assert set(frame["role"]) == {"fit"}


@pytest.mark.slow
def test_eleven_hundred_runs_are_read_over_two_pages(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("many")
    for number in range(1100):
        run = client.create_run(experiment, start_time=number).info.run_id
        metrics = [Metric("loss", 3.0 + number / 1e4, 0, 0), Metric("tokens", 1e6 + number, 0, 0)]
        client.log_batch(run, metrics=metrics, params=[Param("n_params", str(1000 + number))])
        client.set_terminated(run)
    told: list[int] = []
    asked = Asked(tracking_uri=uri, progress=lambda done, total: told.append(done))
    logged = read_experiment("many", asked)
    assert sorted(logged.frame["params.n_params"].astype(int)) == list(range(1000, 2100))
    assert told == [0, 1000, 1100]
    columns = logged.columns_for({})
    assert read_table(logged.table(columns), columns=columns).counts.used == 1100
    client._tracking_client.store.engine.dispose()
