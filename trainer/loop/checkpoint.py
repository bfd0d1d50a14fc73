"""Checkpoints that are whole or absent: a file with its own checksum, written aside and renamed.

A file is one line of magic, one line with the SHA-256 of the rest, and the rest as ``torch.save`` writes it; it is read
with ``weights_only=True``, after the checksum. The last two are kept, so a damaged one costs a little work and no run;
those that branches start from are kept beside them, under a name of their own.

Several processes write a folder in place of the file (``trainer.distributed.checkpoint``); either is read by all.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer.distributed.world import World
from trainer.whole_file import sync_folder

__all__ = ["CheckpointFolder", "DamagedCheckpoint", "load", "open_folder", "remove", "save"]

KEPT = 2
_MAGIC = b"lossfrontier checkpoint 1\n"
_DIGEST_LINE = 65
_NAME = re.compile(r"step-(\d{12})\.checkpoint")
_BRANCH_NAME = re.compile(r"branch-(\d{12})\.checkpoint")
TEMPORARY = ".tmp"

Form = Callable[[], dict[str, Any]]


class DamagedCheckpoint(Exception):
    """The file is not what was written: cut short, altered, or no checkpoint of ours."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, and lists and dicts of them) so that ``path`` appears whole.

    After an ``OSError`` (no room, no permission) ``path`` is what it was before.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC)
            file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def load(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The state in ``path`` with its tensors on ``device``; :class:`DamagedCheckpoint` if it is not what was saved."""
    if path.is_dir():
        from trainer.distributed.checkpoint import load_folder

        return load_folder(path, device)
    content = path.read_bytes()
    start = len(_MAGIC) + _DIGEST_LINE
    if not content.startswith(_MAGIC) or len(content) < start:
        raise DamagedCheckpoint(f"{path} is cut short or no checkpoint")
    payload = memoryview(content)[start:]
    if hashlib.sha256(payload).hexdigest().encode() != content[len(_MAGIC) : start - 1]:
        raise DamagedCheckpoint(f"{path} does not match its checksum")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    return state


def remove(path: Path) -> None:
    """Remove a checkpoint if it is there; a folder loses its name first."""
    if path.is_dir():
        doomed = path.with_name(f"{path.name}.removed{TEMPORARY}")
        path.rename(doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)


def open_folder(folder: Path, note: Callable[[str], None], world: World) -> CheckpointFolder:
    """The checkpoints in ``folder`` as the processes of ``world`` write them."""
    if world.ranks == 1:
        return CheckpointFolder(folder, note)
    from trainer.distributed.checkpoint import SharedCheckpointFolder

    return SharedCheckpointFolder(folder, note, world)


class CheckpointFolder:
    """The checkpoints of one run, which one process at a time may train."""

    def __init__(self, folder: Path, note: Callable[[str], None]) -> None:
        """``note`` is told, in a line, of every checkpoint that turns out to be damaged."""
        self.folder, self._note = folder, note
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{TEMPORARY}"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)

    def _steps(self, name: re.Pattern[str] = _NAME) -> list[tuple[int, Path]]:
        """The checkpoints and their steps, the newest first."""
        found = [(match, path) for path in self.folder.iterdir() if (match := name.fullmatch(path.name))]
        return sorted(((int(match[1]), path) for match, path in found), reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        save(self._path(step), state)
        self.keep(KEPT)

    def save_for_branches(self, step: int, state: dict[str, Any]) -> None:
        save(self._branch_path(step), state)

    def finish(self) -> None:
        """Wait until all that was saved is on the disk."""

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:012d}.checkpoint"

    def _branch_path(self, step: int) -> Path:
        return self.folder / f"branch-{step:012d}.checkpoint"

    def keep(self, count: int) -> None:
        """Remove all but the newest ``count``, and none that branches start from."""
        for _, path in self._steps()[count:]:
            self._remove(path)

    def newest_step(self) -> int:
        """The step of the newest checkpoint, 0 if there is none."""
        return max((step for step, _ in self._steps()), default=0)

    def newest(self, device: str = "cpu", at_most: int | None = None, form: Form = dict) -> dict[str, Any] | None:
        """The newest checkpoint, of step ``at_most`` or before, that is whole, or None; damaged ones are removed after
        saying so. ``form`` gives a state whose tensors are spread over processes as those to be read are."""
        found = [(at, path) for at, path in self._steps() if at_most is None or at <= at_most]
        return self._first_whole(found, device, form)

    def for_branch(self, step: int, device: str = "cpu", form: Form = dict) -> dict[str, Any] | None:
        """The checkpoint kept for branches at ``step``, or the last whole one before it, or None."""
        found = [(at, path) for at, path in self._steps(_BRANCH_NAME) if at <= step]
        return self._first_whole(found, device, form)

    def _first_whole(self, found: list[tuple[int, Path]], device: str, form: Form) -> dict[str, Any] | None:
        for step, path in found:
            try:
                return self._load(path, device, form)
            except DamagedCheckpoint as error:
                self._note(f"warning: checkpoint of step {step} is damaged and was removed ({error})")
                self._remove(path)
        return None

    def _load(self, path: Path, device: str, _form: Form) -> dict[str, Any]:
        return load(path, device)

    def _remove(self, path: Path) -> None:
        remove(path)
