"""What a failed run is charged with: its own fault, the machine's or nobody's, and how often each is tried again."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa

from sweeps.ledger.schema import RUNS

__all__ = [
    "MAX_FAILURES",
    "MAX_MACHINE_FAILURES",
    "MAX_PREEMPTIONS",
    "FailureKind",
    "after_failure",
    "after_preemption",
]

MAX_FAILURES = 3
MAX_MACHINE_FAILURES = 5
MAX_PREEMPTIONS = 100
"""In a row, without a step done between them: nothing is lost by waiting, but nothing waits for ever."""

FailureKind = Literal["run", "machine", "memory", "crowded"]
"""``run``: training raised. ``machine``: the worker died or hung. ``memory``: one sequence did not fit, so no retry can
help. ``crowded``: runs trained in one step did not fit together; each is tried alone."""


def after_failure(kind: FailureKind, error: str) -> dict[str, Any]:
    """What a failure of ``kind`` changes in the run's row."""
    again, ended = sa.literal("planned"), sa.literal("failed")
    ours, machines = RUNS.c.failures - RUNS.c.machine_failures, RUNS.c.machine_failures
    change: dict[str, Any] = {"failure_kind": kind, "error": error, "failures": RUNS.c.failures + 1}
    match kind:
        case "run":
            change["state"] = sa.case((ours + 1 >= MAX_FAILURES, ended), else_=again)
        case "machine":
            change["machine_failures"] = machines + 1
            change["state"] = sa.case((machines + 1 >= MAX_MACHINE_FAILURES, ended), else_=again)
        case "memory":
            change |= {"error": f"FAILED_OOM: {error}", "state": ended}
        case "crowded":
            # As many failures as send it into its last try, where it is leased alone; none is its own.
            most = sa.case((RUNS.c.failures + 1 > MAX_FAILURES - 1, RUNS.c.failures + 1), else_=MAX_FAILURES - 1)
            change |= {"failures": most, "machine_failures": machines + most - RUNS.c.failures, "state": again}
    return change


def after_preemption() -> dict[str, Any]:
    """What giving a run back changes: no failure is counted, and it waits for as long as it gets on between."""
    in_a_row = sa.case((RUNS.c.step > RUNS.c.preempted_step, 1), else_=RUNS.c.preemptions + 1)
    stuck = in_a_row >= MAX_PREEMPTIONS
    return {
        "preemptions": in_a_row,
        "preempted_step": RUNS.c.step,
        "state": sa.case((stuck, "failed"), else_="planned"),
        "error": sa.case((stuck, f"given back {MAX_PREEMPTIONS} times without a step done"), else_=RUNS.c.error),
    }
