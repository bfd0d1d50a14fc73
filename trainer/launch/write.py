"""Which targets there are, and their files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from scaling.errors import UserError
from scaling.record import Record
from trainer.launch.job import Exported, Job, Target
from trainer.whole_file import write_whole

__all__ = ["TARGETS", "Written", "write"]

TARGETS = {
    "torchrun": ("trainer.launch.torchrun", ""),
    "slurm": ("trainer.launch.slurm", ""),
    "ray": ("trainer.launch.ray", "ray"),
    "torchtitan": ("trainer.launch.torchtitan", "torchtitan"),
    "hf": ("trainer.launch.hugging_face", "hf"),
    "table": ("trainer.launch.table", ""),
}
"""By name: the module, and the folder within the export's that its files go to."""


class Written(Record):
    target: str
    files: tuple[str, ...]
    start: str | None
    """The command; None of what is only read."""
    layout: str | None
    """Machines, processes and degrees that it is started on."""
    notes: tuple[str, ...]


def write(job: Job, targets: Sequence[str], *, force: bool) -> list[Written]:
    """Write the files of all ``targets``, or none: :class:`UserError` if one can't express the run, or if a file of
    another content lies in its place and is not to be replaced (``force``)."""
    made: list[tuple[str, Path, Exported]] = []
    for name in dict.fromkeys(targets):
        module, within = TARGETS[name]
        made.append((name, job.out / within, cast(Target, import_module(module)).export(job)))
    for _, folder, exported in made if not force else ():
        for file, content in exported.files.items():
            path = folder / file
            if path.exists() and (not path.is_file() or path.read_bytes() != content.encode()):
                raise UserError(f"{path} already exists and says something else: give another --out, or --force")
    try:
        return [_write(name, folder, exported) for name, folder, exported in made]
    except OSError as error:
        raise UserError(f"--out {job.out} can't be written: {error.strerror}; choose another folder") from None


def _write(name: str, folder: Path, exported: Exported) -> Written:
    for file, content in exported.files.items():
        write_whole(folder / file, content)
        if file in exported.programs:
            (folder / file).chmod(0o755)
    return Written(
        target=name,
        files=tuple(str(folder / file) for file in exported.files),
        start=exported.start,
        layout=None if exported.placement is None else exported.placement.line,
        notes=exported.notes,
    )
