"""The ledger's tables, and how SQLite is set up to hold them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

__all__ = [
    "ABOUT",
    "FORECASTS",
    "MEMBERS",
    "METADATA",
    "MLFLOW_RUNS",
    "POINTS",
    "RUNS",
    "RUN_FACTS",
    "STUDIES",
    "begin_immediate",
    "sqlite_settings",
]

METADATA = sa.MetaData()
ABOUT = sa.Table("ledger", METADATA, sa.Column("version", sa.Integer, primary_key=True))
STUDIES = sa.Table(
    "studies",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("plan", sa.JSON, nullable=False),
    sa.Column("frozen_at", sa.Float, nullable=False),
)
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("flops", sa.Float, nullable=False),
    # The run on whose way this one leaves, the step at which, and the FLOPs that are then left to be trained.
    sa.Column("carrier", sa.String(64), index=True),
    sa.Column("branch_step", sa.Integer),
    sa.Column("own_flops", sa.Float, nullable=False),
    sa.Column("state", sa.String, nullable=False, default="planned", index=True),
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("owner", sa.String),
    sa.Column("heartbeat", sa.Float),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("tokens_per_second", sa.Float),
    sa.Column("loss", sa.Float),
    sa.Column("result", sa.JSON),
    sa.Column("error", sa.Text),
    sa.Column("started_at", sa.Float),
    sa.Column("ended_at", sa.Float),
)
MEMBERS = sa.Table(
    "study_runs",
    METADATA,
    sa.Column("study", sa.String, primary_key=True),
    sa.Column("run_key", sa.String(64), sa.ForeignKey("runs.key"), primary_key=True),
    sa.Column("stage", sa.String, primary_key=True),
    sa.Column("label", sa.String, nullable=False),
    sa.Column("budget_flops", sa.Float),
)
POINTS = sa.Table(
    "points",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_key", sa.String(64), nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("flops", sa.Float, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.UniqueConstraint("run_key", "step", "name"),
)
FORECASTS = sa.Table(
    "forecasts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String, nullable=False),
    sa.Column("forecast", sa.JSON, nullable=False),
    sa.Column("forecast_key", sa.String(64), nullable=False),
    sa.Column("run_keys", sa.JSON, nullable=False),
    sa.Column("registered_at", sa.Float, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("outcome", sa.JSON),
)
MLFLOW_RUNS = sa.Table(
    "mlflow_runs",
    METADATA,
    sa.Column("tracking_uri", sa.String, primary_key=True),
    sa.Column("study", sa.String, primary_key=True),
    sa.Column("run_key", sa.String(64), primary_key=True),
    sa.Column("experiment_id", sa.String, nullable=False),
    sa.Column("mlflow_run_id", sa.String, nullable=False),
    sa.Column("points_sent", sa.Integer, nullable=False, default=0),
    sa.Column("state_sent", sa.String, nullable=False, default=""),
)
RUN_FACTS = sa.Table(
    "run_facts",
    METADATA,
    sa.Column("run_key", sa.String(64), primary_key=True),
    sa.Column("facts", sa.JSON, nullable=False),
)


def sqlite_settings(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling begins too late for "BEGIN IMMEDIATE"; SQLAlchemy begins instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def begin_immediate(connection: sa.Connection) -> None:
    # SQLAlchemy tells of a beginning in autocommit too; who only looks needs no lock.
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    # Taking the write lock at once makes a reader-then-writer wait its turn instead of failing half-way.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
