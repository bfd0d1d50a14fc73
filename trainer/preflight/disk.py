"""Is there room on the disks for the corpus and the checkpoints?"""

from __future__ import annotations

import shutil
from pathlib import Path

from scaling.architectures import total_params
from scaling.quantity import format_bytes
from scaling.run_spec import RunSpec
from trainer.loop.checkpoint import KEPT
from trainer.preflight.check import Check

__all__ = ["check_corpus_room", "check_disk", "checkpoint_bytes"]

CORPUS_SHARE = 2.0
"""Bytes on the disk while text is prepared, over its own: the text waits in pieces while the tokens, of at most four
bytes each and seldom shorter than two, are written."""
AMPLE = 2.0


def checkpoint_bytes(spec: RunSpec) -> int:
    """A whole checkpoint: fp32 weights and the optimizer's moments, and the snapshot of a run that may go back."""
    moments = 2 if spec.optimizer.name == "adamw" else 1
    copies = 2 if spec.spikes.action == "rewind" else 1
    return 4 * total_params(spec.shape) * (1 + moments) * copies


def check_disk(spec: RunSpec, folder: Path, checkpoint: int, corpus_bytes: int) -> Check:
    """``checkpoint``: bytes of one, measured or by :func:`checkpoint_bytes`. The last ``KEPT`` are on the disk while
    the next is written; those that are there already need no more room."""
    there = sum(_size(path) for path in folder.glob("*.checkpoint")) if folder.is_dir() else 0
    needed = max(0, (KEPT + 1) * checkpoint - there)
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    status = "fail" if free < needed else "warn" if free < AMPLE * needed else "ok"
    return Check(
        name="disk",
        status=status,
        said=f"{format_bytes(free)} free at {place}; {KEPT + 1} checkpoints of {format_bytes(checkpoint)} need "
        f"{format_bytes(needed)} more; the corpus takes {format_bytes(corpus_bytes)} already",
        remedy=None if status == "ok" else "free some room, or give another folder by --out",
        figures={
            "free_bytes": free,
            "needed_bytes": needed,
            "checkpoint_bytes": checkpoint,
            "corpus_bytes": corpus_bytes,
        },
    )


def check_corpus_room(text_bytes: int, corpora: Path) -> Check:
    """Before text of ``text_bytes``, as it lies on the disk, is prepared into ``corpora``."""
    needed, place = int(CORPUS_SHARE * text_bytes), _existing(corpora)
    free = shutil.disk_usage(place).free
    return Check(
        name="disk",
        status="fail" if free < needed else "ok",
        said=f"{format_bytes(free)} free at {place}; preparing {format_bytes(text_bytes)} of text takes about "
        f"{format_bytes(needed)}",
        remedy="free some room, or prepare it elsewhere by --workspace" if free < needed else None,
        figures={"free_bytes": free, "needed_bytes": needed},
    )


def _existing(path: Path) -> Path:
    """The nearest folder above that is there: it lies on the same disk."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
