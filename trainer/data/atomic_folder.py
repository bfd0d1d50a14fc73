"""A folder that appears whole or not at all: filled under a partial name, renamed when complete, one writer at a time.

The lock is an advisory one that the kernel drops with its process, so a killed writer leaves nothing but a partial
folder, which the next writer removes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trainer.whole_file import sync_folder

__all__ = ["new_file", "partial_folder", "publish", "sole_writer"]

_LOCK, _PARTIAL = ".lock", ".partial"


@contextmanager
def sole_writer(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the right to write ``folder``; ``on_wait`` is called once if another process has it."""
    with _lock_file(folder).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to fill and :func:`publish`; removed afterwards if it still exists.

    Called by the sole writer, for whom partial folders of others that hold no lock are what killed processes left.
    """
    _remove_leftovers(folder.parent, mine=folder)
    partial = folder.with_name(f".{folder.name}{_PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish(partial: Path, folder: Path) -> None:
    """Rename ``partial`` to ``folder``, durably; if a complete folder is there already, it stays."""
    sync_folder(partial)
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file open for writing, on the disk when the block ends."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_LOCK}")


def _remove_leftovers(parent: Path, mine: Path) -> None:
    for partial in parent.glob(f".*{_PARTIAL}"):
        owner = partial.with_name(partial.name[1 : -len(_PARTIAL)])
        if owner == mine:
            continue
        with _lock_file(owner).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(partial, ignore_errors=True)
