"""What lies in a workspace and nobody needs: checkpoints of finished runs, folders of unknown runs, half-written files.

A run that is planned, running, failed or called off needs its checkpoints, and so does one on whose way such a run
leaves.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import sqlalchemy as sa

from sweeps.ledger.ledger import Ledger
from sweeps.ledger.schema import RUNS
from sweeps.workspace import Workspace

__all__ = ["Leftover", "leftovers", "remove_leftovers"]

Kind = Literal["checkpoint of a finished run", "folder of an unknown run", "half-written"]
HALF_WRITTEN_SECONDS = 3600.0
"""A temporary file that nobody has touched for so long is a dead process's."""
_REMOVED = ".removed.tmp"
_RUN_FOLDER = re.compile(r"[0-9a-f]{16}")
_CHECKPOINT = re.compile(r"(step|branch)-(\d{12})\.checkpoint")


class Leftover(NamedTuple):
    """A file or folder that can go."""

    path: Path
    kind: Kind
    size: int


def leftovers(ledger: Ledger, workspace: Workspace, *, keep_final: bool = False) -> list[Leftover]:
    """What can be removed; with ``keep_final`` each finished run keeps its last checkpoint."""
    with ledger.reading() as db:
        return list(_found(db, workspace, keep_final))


def remove_leftovers(
    ledger: Ledger, workspace: Workspace, agreed: list[Leftover], *, keep_final: bool = False
) -> list[Leftover]:
    """Remove those of ``agreed`` that still can go, and return them; the ledger stands still meanwhile."""
    wanted = {leftover.path for leftover in agreed}
    removed = []
    with ledger.transaction() as db:
        for leftover in [each for each in _found(db, workspace, keep_final) if each.path in wanted]:
            _remove(leftover.path)
            removed.append(leftover)
    return removed


def _found(db: sa.Connection, workspace: Workspace, keep_final: bool) -> Iterator[Leftover]:
    # One moment for all: a run that somebody takes up while the disk is looked through waits for the transaction.
    ended = RUNS.c.state.in_(("finished", "diverged"))
    idle = {key[:16] for key in db.scalars(sa.select(RUNS.c.key).where(RUNS.c.owner.is_(None)))}
    known = {key[:16] for key in db.scalars(sa.select(RUNS.c.key))}
    finished = {key[:16] for key in db.scalars(sa.select(RUNS.c.key).where(ended))} & idle
    carrying = {key[:16] for key in db.scalars(sa.select(RUNS.c.carrier).where(RUNS.c.carrier.is_not(None), ~ended))}
    for folder in sorted(workspace.runs.iterdir()) if workspace.runs.is_dir() else []:
        if folder.is_symlink() or not folder.is_dir():
            continue
        if folder.name.endswith(_REMOVED):
            yield Leftover(folder, "half-written", _size(folder))
        if not _RUN_FOLDER.fullmatch(folder.name):
            continue
        if folder.name not in known:
            yield Leftover(folder, "folder of an unknown run", _size(folder))
            continue
        if folder.name in finished - carrying:
            checkpoints = sorted(path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name))
            newest = [path for path in checkpoints if path.name.startswith("step-")][-1:]
            for path in checkpoints:
                if not (keep_final and path in newest):
                    yield Leftover(path, "checkpoint of a finished run", _size(path))
        if folder.name in idle:
            for path in sorted(folder.glob("*.tmp")):
                yield Leftover(path, "half-written", _size(path))
    yield from _half_written(workspace)


def _half_written(workspace: Workspace) -> Iterator[Leftover]:
    """What `write_whole` and `atomic_folder` leave when they are killed; both begin with a dot."""
    for folder in (workspace.corpora, workspace.root / "studies"):
        for path in sorted(folder.rglob(".*")):
            temporary = re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) and path.is_file()
            partial = path.name.endswith(".partial") and path.is_dir()
            if (temporary or partial) and not path.is_symlink() and _untouched(path) > HALF_WRITTEN_SECONDS:
                yield Leftover(path, "half-written", _size(path))


def _untouched(path: Path) -> float:
    """Seconds since anything in ``path`` was written."""
    return time.time() - max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


def _size(path: Path) -> int:
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if not each.is_dir())


def _remove(path: Path) -> None:
    """A folder loses its name first, so that nobody takes half of one for whole."""
    if path.is_dir() and not path.is_symlink():
        doomed = path if path.name.endswith(_REMOVED) else path.with_name(f".{path.name}{_REMOVED}")
        path.rename(doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)
