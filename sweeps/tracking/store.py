"""Opens an MLflow store so that nobody waits for it longer than is stated, and a new database is set up once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["REQUEST_SECONDS", "STORE_FAULTS", "active_runs", "experiment_id", "impatient_client", "open_client"]

REQUEST_SECONDS = 10
"""After which a request that a server took and did not answer counts as failed; MLflow's own 120 s times 7 retries
would be a quarter of an hour."""
STORE_FAULTS = (OSError, SQLAlchemyError, MlflowException)
"""What a store that is away, locked or broken raises."""


def open_client(uri: str) -> MlflowClient:
    """A client of the store at ``uri``, which is set up if it is new."""
    with _alone_on(uri):
        return impatient_client(uri)


def impatient_client(uri: str) -> MlflowClient:
    """A client that waits ``REQUEST_SECONDS``; the environment's own ``MLFLOW_HTTP_REQUEST_*`` are left as they are."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    return MlflowClient(tracking_uri=uri)


@contextmanager
def _alone_on(uri: str) -> Iterator[None]:
    """MLflow's migrations of a new SQLite file fail where two processes begin them at once."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.parent.is_dir():
        yield
        return
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The id of the experiment ``name``, which is made, with its files at ``artifacts``, if it isn't there."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:  # another process was a moment faster
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def active_runs(client: MlflowClient, experiment: str, where: str = "") -> Iterator[Run]:
    """All runs of the experiment that nobody deleted, page by page."""
    token = None
    while True:
        page = client.search_runs([experiment], filter_string=where, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
