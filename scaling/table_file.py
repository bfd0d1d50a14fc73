"""Reads the file behind a table: every cell as it stands, and every malformed row by number."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from scaling.errors import UserError

__all__ = ["load_rows"]


def _read_csv(path: Path) -> tuple[pd.DataFrame, dict[int, str]]:
    """The file as text cells, with the rows whose number of fields is wrong; blank lines are not rows."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as CSV in UTF-8, or as parquet"
        ) from None
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise UserError(f"{path} can't be read as CSV ({error}): save it again as plain comma-separated text") from None
    if not rows:
        raise UserError(f"{path} is empty: a table of runs needs a header and at least one row")
    header = [name.strip() for name in rows[0]]
    _refuse_twice(header, str(path))
    malformed = {
        number: f"has {len(row)} fields where the header has {len(header)}"
        for number, row in enumerate(rows[1:], start=1)
        if len(row) != len(header)
    }
    padded = [(row + [""] * len(header))[: len(header)] for row in rows[1:]]
    return pd.DataFrame(padded, columns=header, dtype=object), malformed


def _plain(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The frame with rows from 0 and column names that are text, each once."""
    names = [str(name) for name in frame.columns]
    _refuse_twice(names, source)
    return frame.reset_index(drop=True).set_axis(names, axis=1)


def _refuse_twice(names: list[str], source: str) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source}: column {twice!r} appears twice in the header; rename one of them")


def load_rows(source: Path | str | pd.DataFrame) -> tuple[pd.DataFrame, dict[int, str]]:
    """The rows of a CSV (comma, semicolon or tab), a parquet file or a frame, and why malformed ones are rejected.

    Cells of a CSV stay text; rows are numbered from 1, the header and blank lines not counted. Raises ``UserError`` for
    a file that can't be read.
    """
    if isinstance(source, pd.DataFrame):
        return _plain(source, "the table"), {}
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path} is not a file: give a table of runs as .csv or .parquet")
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            return _plain(pd.read_parquet(path), str(path)), {}
        except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} can't be read as parquet ({reason}): write it again, or give a CSV") from None
    try:
        return _read_csv(path)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check its permissions") from None
