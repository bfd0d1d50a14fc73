"""What a person does to a study's runs in the ledger: call them off, plan them again, take one over from elsewhere.

A called-off run that is being trained keeps its owner until that has saved and let go of it, so that nobody takes it up
again while somebody still writes its checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from scaling.errors import UserError
from sweeps.ledger.ledger import Ledger, RunRow, State
from sweeps.ledger.owner import Owner
from sweeps.ledger.schema import POINTS, RUNS

__all__ = ["Cancelled", "Retried", "adopt", "cancel", "named_runs", "retry", "states_of"]


class Cancelled(NamedTuple):
    """Keys of runs that won't be trained: those that nobody had begun or taken up, and those told to stop."""

    planned: list[str]
    running: list[str]


class Retried(NamedTuple):
    """Keys of runs planned again, and of those that their worker has still to let go of."""

    planned: list[str]
    stopping: list[str]


def named_runs(ledger: Ledger, study: str, names: Sequence[str]) -> list[RunRow]:
    """The study's runs whose key begins with one of ``names`` or whose label it is; all of them without names.

    Raises :class:`UserError` for a name that none answers to.
    """
    rows = ledger.runs(study)
    if not names:
        return rows
    chosen: dict[str, RunRow] = {}
    for name in names:
        found = {row.key: row for row in rows if (name and row.key.startswith(name)) or row.label == name}
        if not found:
            raise UserError(f"RUN is {name!r}: no run of study {study!r} has that key or label; see `scaling status`")
        chosen |= found
    return list(chosen.values())


def cancel(ledger: Ledger, study: str, names: Sequence[str] = ()) -> Cancelled:
    """Call off the named runs that have not ended; who trains one of them stops at the next step's boundary."""
    keys = [row.key for row in named_runs(ledger, study, names)]
    done: dict[str, list[str]] = {"planned": [], "running": []}
    with ledger.transaction() as db:
        for some in _in_parts(keys):
            for state, found in done.items():
                statement = sa.update(RUNS).where(RUNS.c.key.in_(some), RUNS.c.state == state)
                values = {"state": "killed", "error": "called off", "ended_at": time.time()}
                found += db.scalars(statement.values(**values).returning(RUNS.c.key)).all()
    return Cancelled(**done)


def retry(ledger: Ledger, study: str, names: Sequence[str] = ()) -> Retried:
    """Plan the named runs that failed or were called off again, with a clean record; they go on where they were."""
    keys = [row.key for row in named_runs(ledger, study, names)]
    ended = RUNS.c.state.in_(("failed", "killed"))
    planned: list[str] = []
    stopping: list[str] = []
    with ledger.transaction() as db:
        for some in _in_parts(keys):
            for row in db.execute(sa.select(RUNS.c.key, RUNS.c.owner).where(RUNS.c.key.in_(some), ended)):
                held = row.owner is not None and not Owner.parse(row.owner).is_dead()
                (stopping if held else planned).append(row.key)
        clean = {
            "state": "planned",
            "failures": 0,
            "machine_failures": 0,
            "preemptions": 0,
            "failure_kind": None,
            "error": None,
            "owner": None,
            "ended_at": None,
        }
        for some in _in_parts(planned):
            db.execute(sa.update(RUNS).where(RUNS.c.key.in_(some)).values(**clean))
    return Retried(planned, stopping)


def adopt(
    ledger: Ledger,
    key: str,
    result: Mapping[str, Any],
    started_at: float | None,
    points: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write down a run of the ledger that was finished elsewhere, with its curve; one that has ended here is kept.

    ``started_at`` is by the clock of whoever trained it. Raises :class:`UserError` if it is being trained here.
    """
    now = time.time()
    values = {
        "state": result["status"],
        "result": dict(result),
        "loss": result.get("loss_nats"),
        "step": result["steps"],
        "tokens_per_second": result.get("tokens_per_second"),
        "owner": None,
        "error": None,
        "started_at": started_at,
        "ended_at": now if started_at is None else started_at + result["wall_seconds"],
    }
    with ledger.transaction() as db:
        state = db.scalar(sa.select(RUNS.c.state).where(RUNS.c.key == key))
        if state in ("finished", "diverged"):
            return
        if state == "running":
            raise UserError(f"run {key[:8]} is being trained in this workspace: `scaling cancel` it first")
        db.execute(sa.update(RUNS).where(RUNS.c.key == key).values(**values))
        db.execute(sa.delete(POINTS).where(POINTS.c.run_key == key))
    ledger.add_points(key, points)


def _in_parts(keys: Sequence[str], size: int = 500) -> list[Sequence[str]]:
    """SQLite takes so many variables in one statement and no more."""
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def states_of(ledger: Ledger, keys: Sequence[str]) -> dict[str, State]:
    """The states of those of ``keys`` that the workspace has, in whichever study."""
    states: dict[str, State] = {}
    with ledger.reading() as db:
        for some in _in_parts(keys):
            states |= {
                row.key: row.state
                for row in db.execute(sa.select(RUNS.c.key, RUNS.c.state).where(RUNS.c.key.in_(some)))
            }
    return states
