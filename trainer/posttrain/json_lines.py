"""A file of JSON objects, a line each, that only grows: every row is there whole or not at all.

Several processes may add to one file. Each row is flushed to the disk before :meth:`JsonLines.add` returns; a line that
a killed process left without its end is removed when the file is next opened.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from scaling.errors import UserError
from trainer.data.packed_lines import DAMAGED, packed_lines

__all__ = ["JsonLines", "as_lines", "read_json_lines"]


def as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that people made, plain or packed; :class:`UserError` names the line that is no object."""
    try:
        return [_object(line, path, number) for number, line in enumerate(packed_lines(path), start=1) if line.strip()]
    except (OSError, *DAMAGED) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} can't be read: {problem}; give a file of JSON objects, a line each") from None


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number} is no JSON object: {line[:60].decode(errors='replace').strip()!r}")
    return row


class JsonLines:
    """``add`` appends; ``news`` returns the rows that were added by anybody since they were last asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = self._lines = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path) as file:
                content = file.read()
                file.truncate(content.rfind(b"\n") + 1)
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}; choose another place") from None

    def add(self, row: Mapping[str, Any]) -> None:
        with _locked(self.path) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                file.write(as_lines([row]).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self.path, before)
                raise UserError(f"{self.path} can't be written: {error.strerror}; make room and go on") from None

    def news(self) -> list[dict[str, Any]]:
        with _locked(self.path) as file:
            file.seek(self._read_to)
            content = file.read()
        self._read_to += len(content)
        rows = []
        for line in content.splitlines():
            self._lines += 1
            rows.append(_object(line, self.path, self._lines))
        return rows


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file from its beginning, while no other process reads or writes it; made if it isn't there."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
