"""Merges a carried study into a workspace: the same run in both is one run, and the further state wins."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from scaling.errors import UserError
from scaling.record import content_hash
from sweeps.bundle.export import CarriedForecast, CarriedRun
from sweeps.bundle.reader import Bundle, checkpoints_in, read_bundle
from sweeps.ledger.ledger import GENESIS, Ledger, PlannedRun
from sweeps.ledger.schema import FORECASTS, MLFLOW_RUNS, POINTS, RUNS
from sweeps.tracking.run_facts import record_facts
from sweeps.workspace import Workspace
from trainer.loop.checkpoint import remove

__all__ = ["Merged", "import_study"]

_RANK = {"planned": 0, "killed": 1, "pruned": 1, "failed": 2, "running": 3, "diverged": 4, "finished": 4}


@dataclass
class Merged:
    """What came of an import."""

    study: str
    taken: list[str] = field(default_factory=list)
    """Keys of runs that are further in the file than they were here."""
    kept: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    forecasts: int = 0
    checkpoints: int = 0


def import_study(ledger: Ledger, workspace: Workspace, path: Path) -> Merged:
    """Merge the study in ``path`` into the workspace; doing it twice changes nothing.

    Raises :class:`UserError` for a file that is not as exported, and for a study that is here under other settings.
    """
    bundle = read_bundle(path)
    name = bundle.study.name
    here = ledger.plan_of(name)
    if here is not None and here[0] != bundle.study.settings:
        raise UserError(
            f"study {name!r} is in {workspace.root} under other settings; import it into another --workspace"
        )
    if here is None:
        ledger.freeze(name, bundle.study.settings, bundle.study.plan)
    ledger.add(
        name,
        [
            PlannedRun(
                spec=run.spec, stage=run.stage, label=run.label, budget_flops=run.budget_flops, carrier=run.carrier
            )
            for run in bundle.runs
        ],
    )
    merged = Merged(name)
    with ledger.transaction() as db:
        for run in bundle.runs:
            _merge_run(db, run, bundle, merged)
        _merge_forecasts(db, bundle, merged)
    record_facts_of = {key: facts for key, facts in bundle.facts.items() if key in set(merged.taken)}
    for key, facts in record_facts_of.items():
        record_facts(ledger, [key], facts)
    merged.checkpoints = _place_checkpoints(workspace, path, bundle, set(merged.taken))
    return merged


def _merge_run(db: sa.Connection, run: CarriedRun, bundle: Bundle, merged: Merged) -> None:
    there = db.execute(sa.select(RUNS.c.state, RUNS.c.step, RUNS.c.result).where(RUNS.c.key == run.key)).one()
    # Whoever trains it elsewhere does not train it here.
    state = "planned" if run.state == "running" else run.state
    brings = run.key[:16] in bundle.checkpoints
    ahead = (_RANK[state], run.step if brings else 0) > (_RANK[there.state], there.step)
    if not ahead or (state == "planned" and there.state != "planned"):
        merged.kept.append(run.key)
        _compare(run, there.state, there.result, merged)
        return
    ended = state in ("finished", "diverged")
    values: dict[str, Any] = {
        "state": state,
        "owner": None,
        # Branches start where their carrier has kept a checkpoint: without one it is at its beginning.
        "step": run.step if ended or brings else 0,
        **{name: getattr(run, name) for name in ("failures", "loss", "tokens_per_second", "result", "error")},
        **{name: getattr(run, name) for name in ("started_at", "ended_at")},
    }
    db.execute(sa.update(RUNS).where(RUNS.c.key == run.key).values(**values))
    db.execute(sa.delete(POINTS).where(POINTS.c.run_key == run.key))
    points = [point.model_dump() for point in bundle.points.get(run.key, [])]
    if points:
        db.execute(sa.insert(POINTS), points)
    # Its points have other ids now, so MLflow is sent them anew; equal ones are kept once there.
    shown = sa.update(MLFLOW_RUNS).where(MLFLOW_RUNS.c.run_key == run.key)
    db.execute(shown.values(points_sent=0, state_sent=""))
    merged.taken.append(run.key)


def _compare(run: CarriedRun, state: str, result: dict[str, Any] | None, merged: Merged) -> None:
    """Equal runs under equal numerics must end alike."""
    ours, theirs = result or {}, run.result or {}
    both_ended = {state, run.state} <= {"finished", "diverged"}
    if both_ended and ours.get("numerics") == theirs.get("numerics"):
        for name in ("status", "loss_nats", "weights_hash"):
            if ours.get(name) != theirs.get(name):
                merged.conflicts.append(
                    f"run {run.key[:8]} ({run.label}), {ours.get('numerics')}: {name} is {ours.get(name)} here and "
                    f"{theirs.get(name)} in the file; ours is kept"
                )
                return


def _merge_forecasts(db: sa.Connection, bundle: Bundle, merged: Merged) -> None:
    """The file's chain goes on ours, or is ours; forecasts of two histories are appended with their own times."""
    ours = list(db.execute(sa.select(FORECASTS.c.hash).order_by(FORECASTS.c.id)).scalars())
    theirs = [link.hash for link in bundle.chain]
    grows = ours == theirs[: len(ours)]
    started = {run.key: run.started_at for run in bundle.runs if run.started_at is not None}
    for at, link in enumerate(bundle.chain):
        known = (FORECASTS.c.study == link.study, FORECASTS.c.forecast_key == link.forecast_key)
        there = db.execute(sa.select(FORECASTS.c.id, FORECASTS.c.outcome).where(*known)).first()
        if there is not None:
            if there.outcome is None and link.outcome is not None:
                db.execute(sa.update(FORECASTS).where(FORECASTS.c.id == there.id).values(outcome=link.outcome))
            continue
        if any(started.get(key, link.registered_at + 1) < link.registered_at for key in link.run_keys):
            merged.conflicts.append(f"forecast {link.forecast_key[:12]} was registered after its runs had started")
        if grows and at >= len(ours):
            db.execute(sa.insert(FORECASTS).values(**link.model_dump()))
        elif link.study == bundle.study.name:
            db.execute(sa.insert(FORECASTS).values(**_appended(db, link)))
        else:
            continue
        merged.forecasts += 1


def _appended(db: sa.Connection, link: CarriedForecast) -> dict[str, Any]:
    """``link`` as the last of our chain."""
    row = link.model_dump(exclude={"hash", "outcome", "previous_hash"})
    row["previous_hash"] = db.scalar(sa.select(FORECASTS.c.hash).order_by(FORECASTS.c.id.desc()).limit(1)) or GENESIS
    return row | {"hash": content_hash(row), "outcome": link.outcome}


def _place_checkpoints(workspace: Workspace, path: Path, bundle: Bundle, taken: set[str]) -> int:
    """Checkpoints of the runs that were taken, each whole or not at all, and never outside the workspace."""
    if not bundle.checkpoints:
        return 0
    wanted = {key[:16] for key in taken}
    placed = 0
    workspace.runs.mkdir(parents=True, exist_ok=True)
    for (folder_name, name), files in groupby(checkpoints_in(path), key=itemgetter(0, 1)):
        folder = workspace.runs / folder_name
        if folder_name not in wanted:
            continue
        if (folder / name).resolve() != workspace.runs.resolve() / folder_name / name:
            raise UserError(f"{folder} leads out of the workspace: remove that link first")
        folder.mkdir(exist_ok=True)
        temporary = folder / f"{name}.{time.time_ns()}.tmp"
        try:
            for _, _, file, content in files:
                target = temporary / file if file else temporary
                target.parent.mkdir(exist_ok=True)
                with target.open("xb") as written:
                    shutil.copyfileobj(content, written, 1 << 20)
            if temporary.is_dir() or (folder / name).is_dir():
                remove(folder / name)
            temporary.replace(folder / name)
        finally:
            remove(temporary)
        placed += 1
    return placed
