"""The ledger's tables, and how SQLite or Postgres is set up to hold them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from scaling.errors import UserError

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
    "alone",
    "insert",
    "open_database",
]

METADATA = sa.MetaData()
_LOCK = 0x10557E55
"""Any number, the same for all."""
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
    sa.Column("branch_step", sa.BigInteger),
    sa.Column("own_flops", sa.Float, nullable=False),
    sa.Column("state", sa.String, nullable=False, default="planned", index=True),
    # All failures, those of them that were the machine's, and what the last one was (``sweeps.failures``).
    sa.Column("failures", sa.Integer, nullable=False, default=0),
    sa.Column("machine_failures", sa.Integer, nullable=False, default=0),
    sa.Column("failure_kind", sa.String),
    # How often in a row it was given back without a step done, and where it was then.
    sa.Column("preemptions", sa.Integer, nullable=False, default=0),
    sa.Column("preempted_step", sa.BigInteger, nullable=False, default=0),
    sa.Column("owner", sa.String),
    sa.Column("heartbeat", sa.Float),
    sa.Column("step", sa.BigInteger, nullable=False, default=0),
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
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
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


def open_database(url: str) -> sa.Engine:
    """:class:`UserError` in one line if it can't be reached, or its driver is not installed."""
    shown = sa.make_url(url).render_as_string(hide_password=True)
    try:
        engine = sa.create_engine(url)
    except ModuleNotFoundError as error:
        raise UserError(f"the ledger {shown} needs {error.name}: pip install 'lossfrontier[postgres]'") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", sqlite_settings)
        sa.event.listen(engine, "begin", begin_immediate)
        return engine
    try:
        engine.connect().close()
    except sa.exc.OperationalError as error:
        problem = " ".join(str(error.orig).split())
        raise UserError(
            f"the ledger {shown} can't be reached: {problem}; start it, or correct execute.ledger"
        ) from None
    return engine


def insert(db: sa.Connection, table: sa.Table) -> Any:
    """An insert that may say what to do where the row is there already, which each dialect has for itself."""
    return (postgresql if db.dialect.name == "postgresql" else sqlite).insert(table)


def alone(db: sa.Connection) -> None:
    """Nobody else who calls this writes until the transaction ends; SQLite's transactions are so from their start."""
    if db.dialect.name == "postgresql":
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


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
