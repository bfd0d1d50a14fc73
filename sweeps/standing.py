"""How a study stands: its runs with their states, how fast they go, what is left, and why some failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.errors import UserError
from sweeps.ledger.ledger import ENDED, LARGE, Ledger, RunRow
from sweeps.planning.makespan import Job, makespan_seconds
from sweeps.workspace import Workspace

__all__ = ["FAILURE_LOG", "Standing", "standing"]

FAILURE_LOG = "failure.log"
"""In a run's folder: the tracebacks of its failures."""
LARGE_STUDY = 2000


@dataclass(frozen=True)
class Standing:
    """The study at one moment; ``rows`` are what its ledger holds, ``coming`` the stages that it has yet to plan."""

    study: str
    rows: list[RunRow]
    coming: dict[str, int]
    seconds_left: float | None
    """On the plan's workers, by its calibration and the speeds of the runs in training; None where nothing is open, or
    the study is so large that working it out would take longer than looking."""
    logs: dict[str, Path]
    """Of runs that failed, by key."""

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(row.state for row in self.rows))

    @property
    def running(self) -> list[RunRow]:
        return [row for row in self.rows if row.state == "running"]

    @property
    def waiting(self) -> list[RunRow]:
        """Larger runs that are registered and that nobody trains: they wait for somebody, not for the study."""
        return [row for row in self.rows if _waits(row)]

    @property
    def troubled(self) -> list[RunRow]:
        """Runs with a failure in their record, and those that ended without a loss; a pruned trial is no trouble."""
        ended_so = ("failed", "diverged", "killed")
        return [row for row in self.rows if row.state in ended_so or (row.error and row.state != "pruned")]

    @property
    def tokens_per_second(self) -> float:
        return sum(row.tokens_per_second or 0.0 for row in self.running)

    @property
    def share(self) -> float:
        """FLOPs done of those in the ledger but for what is waiting; a branch counts what it trains itself."""
        total = self.flops
        done = sum(_own_share(row) * row.own_flops for row in self.rows if not _waits(row))
        return done / total if total else 0.0

    @property
    def flops(self) -> float:
        return sum(row.own_flops for row in self.rows if not _waits(row))

    @property
    def complete(self) -> bool:
        """Whether all that the study's own workers train has ended."""
        own = [row for row in self.rows if row.stage not in LARGE]
        return bool(own) and not self.coming and all(row.state in ENDED for row in own)

    @property
    def ended(self) -> bool:
        """Whether nothing in the ledger is left to be trained but for what is waiting."""
        return bool(self.rows) and all(row.state in ENDED or _waits(row) for row in self.rows)


def standing(ledger: Ledger, workspace: Workspace, study: str) -> Standing:
    """How ``study`` stands; :class:`UserError` if the ledger has no plan of it."""
    frozen = ledger.plan_of(study)
    if frozen is None:
        raise UserError(f"study {study!r} has no plan in the workspace {workspace.root} yet: scaling plan STUDY")
    plan = frozen[1]
    rows = ledger.runs(study, light=True)
    if len(rows) <= LARGE_STUDY:
        rows = ledger.runs(study)
    stages = {row.stage for row in rows}
    planned = {
        "probe": len(plan["probe"]),
        "tune": len(plan.get("tune", ())) * plan.get("tune_trials", 0),
        "sweep": len(plan["sweep"]),
        "hold-out": plan["replicates"],
    }
    coming = {stage: runs for stage, runs in planned.items() if runs and stage not in stages}
    return Standing(study, rows, coming, _seconds_left(plan, rows, coming), _logs(workspace, rows))


def _waits(row: RunRow) -> bool:
    return row.stage in LARGE and row.state == "planned"


def _own_share(row: RunRow) -> float:
    """What is done of what the run trains itself: a branch begins at its carrier's step."""
    if row.state in ("finished", "diverged"):
        return 1.0
    taken_over = 1 - row.own_flops / row.flops
    return max(0.0, (row.share - taken_over) / (1 - taken_over)) if row.share else 0.0


def _seconds_left(frozen: Mapping[str, Any], rows: list[RunRow], coming: dict[str, int]) -> float | None:
    still_open = [row for row in rows if row.state in ("planned", "running") and not _waits(row)]
    if len(rows) > LARGE_STUDY or not (still_open or coming):
        return None
    # Reading the plan imports torch, a second that a finished study's status does without.
    from sweeps.planning.plan import Plan

    plan = Plan.model_validate(frozen)
    slower = []
    for row in still_open:
        if row.state == "running" and row.tokens_per_second:
            expected = plan.calibration.tokens_per_second(row.spec.shape, plan.numerics)
            slower.append(expected / row.tokens_per_second)
    factor = sum(slower) / len(slower) if slower else 1.0

    def seconds(row: RunRow) -> float:
        whole = plan.calibration.seconds(row.spec.shape, row.spec.tokens, plan.numerics)
        return whole * row.own_flops / row.flops * (1 - _own_share(row)) * factor

    left = makespan_seconds([Job(seconds(row)) for row in still_open], plan.workers) if still_open else 0.0
    return left + factor * sum(plan.stage_seconds(stage) for stage in coming)


def _logs(workspace: Workspace, rows: list[RunRow]) -> dict[str, Path]:
    troubled = [row.key for row in rows if row.error]
    logs = {key: workspace.run_folder(key) / FAILURE_LOG for key in troubled}
    return {key: path for key, path in logs.items() if path.is_file()}
