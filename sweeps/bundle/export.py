"""A study in one file, to be carried to another workspace: plan, runs, curves, what they ran on, and the forecasts with
the chain of hashes they hang in; checkpoints if they are asked for.

The file is a gzipped tar of JSON lines, one a member of :data:`RECORDS`, and of checkpoints as they lie on the disk: a
file each, or, where several processes share a run, the files of a folder one after another.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import Field

from scaling.errors import UserError
from scaling.record import Record
from scaling.run_spec import RunSpec
from sweeps.ledger.ledger import Ledger, Stage, State
from sweeps.ledger.schema import FORECASTS, MEMBERS, POINTS, RUN_FACTS, RUNS, STUDIES
from sweeps.study import NAME_PATTERN
from sweeps.workspace import Workspace
from trainer.run_folder import RunFolder

__all__ = ["CHECKPOINT", "FORMAT", "RECORDS", "CarriedForecast", "CarriedPoint", "CarriedRun", "CarriedStudy", "export"]

FORMAT = 1
RECORDS = ("study.json", "runs.jsonl", "points.jsonl", "facts.jsonl", "forecasts.jsonl")
CHECKPOINT = re.compile(
    r"checkpoints/([0-9a-f]{16})/((?:step|branch)-\d{12}\.checkpoint)(?:/([A-Za-z0-9][A-Za-z0-9._-]{0,199}))?"
)
"""A member's name: the run's folder, the checkpoint, and of one that is a folder the file in it."""


class CarriedStudy(Record):
    format: int
    name: str = Field(pattern=NAME_PATTERN)
    settings: dict[str, Any]
    plan: dict[str, Any]


class CarriedRun(Record):
    """A run and its place in the study, without who trains it."""

    key: str
    spec: RunSpec
    stage: Stage
    label: str = Field(max_length=500)
    budget_flops: float | None
    carrier: str | None
    state: State
    failures: int
    step: int
    tokens_per_second: float | None
    loss: float | None
    result: dict[str, Any] | None
    error: str | None
    started_at: float | None
    ended_at: float | None


class CarriedPoint(Record):
    run_key: str
    step: int
    name: str = Field(max_length=200)
    tokens: int
    flops: float
    value: float
    time: float


class CarriedForecast(Record):
    """A link of the chain; those of other studies before it are carried too, for each hash covers the one before."""

    study: str
    forecast: dict[str, Any]
    forecast_key: str
    run_keys: list[str]
    registered_at: float
    previous_hash: str
    hash: str
    outcome: dict[str, Any] | None


def export(
    ledger: Ledger, workspace: Workspace, study: str, path: Path, *, checkpoints: bool = False
) -> dict[str, int]:
    """Write ``study`` to ``path``, which appears whole; returns how many of each there are in it."""
    with ledger.reading() as db:
        # One moment for all tables, though workers go on writing.
        db.exec_driver_sql("BEGIN")
        about = db.execute(sa.select(STUDIES).where(STUDIES.c.name == study)).first()
        if about is None:
            raise UserError(f"STUDY is {study!r}, which has no plan in the workspace {workspace.root}")
        members = sa.select(MEMBERS.c.run_key).where(MEMBERS.c.study == study)
        joined = sa.select(*_columns(CarriedRun)).join(MEMBERS, MEMBERS.c.run_key == RUNS.c.key)
        queries = {
            "runs.jsonl": joined.where(MEMBERS.c.study == study).order_by(RUNS.c.key),
            "points.jsonl": sa.select(*(POINTS.c[name] for name in CarriedPoint.model_fields))
            .where(POINTS.c.run_key.in_(members))
            .order_by(POINTS.c.id),
            "facts.jsonl": sa.select(RUN_FACTS).where(RUN_FACTS.c.run_key.in_(members)),
            "forecasts.jsonl": sa.select(*(FORECASTS.c[name] for name in CarriedForecast.model_fields)).order_by(
                FORECASTS.c.id
            ),
        }
        found = {name: [dict(row._mapping) for row in db.execute(query)] for name, query in queries.items()}
        db.exec_driver_sql("COMMIT")
    chain = found["forecasts.jsonl"]
    last = max((at for at, link in enumerate(chain) if link["study"] == study), default=-1)
    found["forecasts.jsonl"] = chain[: last + 1]
    head = {"format": FORMAT, "name": study, "settings": about.settings, "plan": about.plan}
    keys = [run["key"] for run in found["runs.jsonl"]] if checkpoints else []
    folders = _checkpoint_folders(workspace, keys)
    taken = 0
    temporary = path.with_name(f".{path.name}.part")
    try:
        with tarfile.open(temporary, "w:gz", compresslevel=6) as archive:
            for name in RECORDS:
                _add(archive, name, [head] if name == "study.json" else found[name])
            for key, folder in folders.items():
                for checkpoint in sorted(folder.glob("*.checkpoint")):
                    taken += _add_checkpoint(archive, f"checkpoints/{key[:16]}/{checkpoint.name}", checkpoint)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    counts = {name.partition(".")[0]: len(rows) for name, rows in found.items()}
    return counts | {"checkpoints": taken, "bytes": path.stat().st_size}


def _columns(record: type[Record]) -> list[sa.Column[Any]]:
    return [(RUNS if name in RUNS.c else MEMBERS).c[name] for name in record.model_fields]


def _add(archive: tarfile.TarFile, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _checkpoint_folders(workspace: Workspace, keys: Sequence[str]) -> dict[str, Path]:
    """By run, where its checkpoints lie: with the study's runs, or with those that ``scaling train`` trained here."""
    folders = {key: workspace.run_folder(key) for key in keys}
    for record in sorted(workspace.trained.glob("*/run.json")):
        found = RunFolder(record.parent).record()
        if found is not None and found.spec.key in folders and any(record.parent.glob("*.checkpoint")):
            folders[found.spec.key] = record.parent
    return folders


def _add_checkpoint(archive: tarfile.TarFile, name: str, path: Path) -> bool:
    """Whether it was there to be added: whoever trains the run may remove it at any time, so all its files are opened
    before the first is read."""
    with ExitStack() as open_files:
        try:
            files = {f"{name}/{each.name}": each for each in sorted(path.iterdir())} if path.is_dir() else {name: path}
            opened = {member: open_files.enter_context(file.open("rb")) for member, file in files.items()}
        except FileNotFoundError:
            return False
        if not all(CHECKPOINT.fullmatch(member) for member in opened):
            return False  # what a network file system keeps for those who read a removed file
        for member, file in opened.items():
            archive.addfile(archive.gettarinfo(arcname=member, fileobj=file), file)
    return True
