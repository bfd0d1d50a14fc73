"""CSV files that Weights & Biases exports, in its three layouts.

- The table of runs: a row a run, ``Name``, ``State``, ``Created``, …, then configuration and summary under their own
  names (nested keys with dots; summaries that ``define_metric`` keeps end in ``.min``). A sweep's has ``Agent`` too.
- A chart: a row a step, ``Step`` or another x axis, then ``RUN - METRIC`` with ``RUN - METRIC__MIN`` and ``__MAX`` of
  the steps drawn as one point.
- The script of W&B's guide to its public API: columns ``summary``, ``config`` and ``name`` with Python dictionaries.

Several files of one project are joined by the names of their runs: a chart holds losses, but no sizes.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.readers.logged import MINIMUM, Asked, LoggedRuns, frame_of
from scaling.errors import UserError
from scaling.table_file import load_rows
from scaling.table_rows import numbers

__all__ = ["is_export", "read_export"]

_BETWEEN = " - "
_LOWEST, _HIGHEST = "__MIN", "__MAX"
_RUNS_HAVE = {"Created", "Runtime", "User", "Sweep", "Notes", "Tags", "End Time", "Updated"}
_API_HAS = {"summary", "config", "name"}
_NO_NUMBER = re.compile(r"(?<![\w'\"])(-?)(nan|inf)(?![\w'\"])")


def is_export(path: Path) -> bool:
    """Whether the file's header is one that W&B writes and nobody else."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
    except (OSError, UnicodeDecodeError):
        return False
    names = {name.strip().strip('"') for name in header.split(",")}
    return _layout(names) is not None


def read_export(paths: Iterable[Path], asked: Asked) -> LoggedRuns:
    """The runs of one or several exports. Raises ``UserError`` for a file that is none, or that can't be joined."""
    paths = list(paths)
    frames = [_read(path) for path in paths]
    frame = reduce(_joined, frames)
    left_out = 0
    if "status" in frame:
        finished = frame["status"].fillna("finished").str.lower() == "finished"
        if asked.unfinished:
            frame = frame.drop(columns="status")
        else:
            frame, left_out = frame[finished].reset_index(drop=True), int((~finished).sum())
    names = " and ".join(str(path) for path in paths)
    return LoggedRuns(frame, f"W&B export {names}", paths[0].stem, left_out)


def _layout(names: set[str]) -> str | None:
    if any(name.endswith(_LOWEST) and _BETWEEN in name for name in names):
        return "chart"
    if {"Name", "State"} <= names and names & _RUNS_HAVE:
        return "runs"
    return "api" if names >= _API_HAS and len(names) <= len(_API_HAS) + 1 else None


def _read(path: Path) -> pd.DataFrame:
    frame, malformed = load_rows(path)
    if malformed:
        row, reason = next(iter(malformed.items()))
        raise UserError(f"{path}: row {row} {reason}; export it again")
    layout = _layout({str(name) for name in frame.columns})
    if layout is None:
        raise UserError(
            f"{path} is no CSV that W&B exports: neither a table of runs (Name, State, …) nor a chart "
            "(columns RUN - METRIC) nor summary, config and name; leave `wandb:` out to read it as a plain table"
        )
    if layout == "chart":
        return _chart(frame)
    if layout == "runs":
        return frame.rename(columns={"Name": "name", "State": "status", "ID": "run_id"})
    return frame_of(_api_row(row, number, path) for number, row in enumerate(frame.to_dict("records"), start=1))


def _chart(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a run: each metric's last and least value, and how far the x axis goes for it."""
    runs: dict[str, dict[str, Any]] = {}
    axis = str(frame.columns[0])
    x = numbers(frame[axis])
    for column in frame.columns[1:]:
        run, between, metric = str(column).rpartition(_BETWEEN)
        if not between or metric.endswith(_HIGHEST):
            continue
        lowest = metric.endswith(_LOWEST)
        metric = metric.removesuffix(_LOWEST)
        values = pd.Series(numbers(frame[column])).dropna()
        if values.empty:
            continue
        row = runs.setdefault(run, {"name": run})
        if metric.startswith("_"):  # the run's own step, once more
            continue
        least = f"metrics.{metric}{MINIMUM}"
        row[least] = min(values.min(), row.get(least, math.inf))
        if not lowest:
            row[f"metrics.{metric}"] = values.iloc[-1]
            reached = f"metrics.{axis}"
            row[reached] = max(x[values.index[-1]], row.get(reached, -math.inf))
    return frame_of(runs.values())


def _api_row(row: Mapping[Hashable, object], number: int, path: Path) -> dict[str, object]:
    told: dict[str, object] = {"name": row["name"]}
    for kind, column in (("params", "config"), ("metrics", "summary")):
        for name, value in _dictionary(str(row[column]), f"{path}: row {number}, {column}").items():
            told |= _flat(f"{kind}.{name}", value)
    return told


def _flat(name: str, value: object) -> dict[str, object]:
    """Nested keys with dots; a configuration of older clients lies in ``value`` beside its ``desc``."""
    if isinstance(value, dict):
        if "value" in value and set(value) <= {"value", "desc"}:
            return _flat(name, value["value"])
        return {key: cell for inner, part in value.items() for key, cell in _flat(f"{name}.{inner}", part).items()}
    return {name: value if isinstance(value, (int, float, str)) or value is None else str(value)}


def _dictionary(text: str, where: str) -> dict[str, object]:
    """A dictionary in JSON or as Python prints it, where NaN and infinity are names that no literal has."""
    for read in (json.loads, ast.literal_eval, _without_names):
        try:
            value = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    raise UserError(f"{where} is no dictionary: {text[:40]!r}; export it again")


def _without_names(text: str) -> object:
    return ast.literal_eval(_NO_NUMBER.sub(lambda found: "None" if found[2] == "nan" else f"{found[1]}1e999", text))


def _joined(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    for frame in (first, second):
        names = frame["name"].tolist()
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"two runs are called {twice!r}, so exports can't be joined by name; rename one in W&B")
    both = [name for name in second.columns if name in first.columns and name != "name"]
    return first.merge(second.drop(columns=both), on="name", how="outer")
