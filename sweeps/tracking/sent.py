"""What the ledger knows of MLflow: which run shows which, and how much of it was sent. The rest is the spool."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa

from sweeps.ledger.ledger import Ledger
from sweeps.ledger.schema import MLFLOW_RUNS, POINTS

__all__ = ["Sent", "forget", "sent_of", "unsent_points"]


class Sent(NamedTuple):
    """The MLflow run of a ledger run (of the study itself, where the key is empty) and what it holds."""

    mlflow_run_id: str
    points_sent: int = 0
    state_sent: str = ""


def sent_of(ledger: Ledger, uri: str, study: str) -> dict[str, Sent]:
    """By run key; the study's own under ``""``."""
    columns = (MLFLOW_RUNS.c.run_key, *(MLFLOW_RUNS.c[name] for name in Sent._fields))
    with ledger.reading() as db:
        rows = db.execute(sa.select(*columns).where(MLFLOW_RUNS.c.tracking_uri == uri, MLFLOW_RUNS.c.study == study))
        return {key: Sent(*rest) for key, *rest in rows}


def forget(ledger: Ledger, uri: str, study: str, mlflow_run_ids: Collection[str]) -> None:
    """Take MLflow runs that are no longer there as never made."""
    with ledger.transaction() as db:
        for run_id in mlflow_run_ids:
            here = (MLFLOW_RUNS.c.tracking_uri == uri, MLFLOW_RUNS.c.study == study)
            db.execute(sa.delete(MLFLOW_RUNS).where(*here, MLFLOW_RUNS.c.mlflow_run_id == run_id))


def unsent_points(ledger: Ledger, key: str, after_id: int, limit: int) -> list[sa.Row[Any]]:
    """The next points of a run with an id over ``after_id``; ``first_of_step`` marks one of each step."""
    others = POINTS.alias()
    first = sa.select(sa.func.min(others.c.id)).where(others.c.run_key == key, others.c.step == POINTS.c.step)
    first_of_step = (POINTS.c.id == first.correlate(POINTS).scalar_subquery()).label("first_of_step")
    query = sa.select(POINTS, first_of_step).where(POINTS.c.run_key == key, POINTS.c.id > after_id)
    with ledger.reading() as db:
        return list(db.execute(query.order_by(POINTS.c.id).limit(limit)))
