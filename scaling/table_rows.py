"""Which rows of a table of runs can be fitted, and by number why the others can't.

Rows count from 1, the header and blank lines not counted. Arrays are (n,), one entry a row of the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from numbers import Real

import numpy as np
import pandas as pd

from scaling.fit import Diagnostic
from scaling.laws.law import FloatArray

__all__ = ["LARGEST_COUNT", "UNIFORM_GUESS", "left_out", "listed", "numbers", "rejections", "shown", "text"]

LARGEST_COUNT = 1e30
_LOSSES = (1e-6, 1e6)
"""Losses outside are slips of the pen; perplexities are still inside, to be told as such."""
UNIFORM_GUESS = math.log(1e6)
"""Nats a token of a uniform guess over a million tokens, more than any tokenizer has: 13.8."""
_VOCABULARY = ("vocabulary", "vocab_size", "vocab", "n_vocab")
_IDENTITY = ("run_key", "run", "run_id", "seed", "phase")
"""Columns that tell two runs of one size, length and (rounded) loss apart: replicates are not duplicates."""
_ENDED_WELL = ("", "finished", "completed", "complete", "done", "success", "ok")
_ROWS_LISTED = 8


def listed(rows: np.ndarray | list[int]) -> str:
    """Row numbers as people read them: "row 3", "rows 3, 7 and 9", "rows 1, 2, … and 40 more"."""
    names = [str(int(row)) for row in sorted(rows)]
    if len(names) == 1:
        return f"row {names[0]}"
    if len(names) > _ROWS_LISTED:
        return f"rows {', '.join(names[:_ROWS_LISTED])} and {len(names) - _ROWS_LISTED} more"
    return f"rows {', '.join(names[:-1])} and {names[-1]}"


def numbers(column: pd.Series) -> FloatArray:
    """The cells as floats, NaN where a cell is empty or no number; true, dates and lists are none."""
    return np.array([_number(cell) for cell in column.tolist()], dtype=np.float64)


def _number(cell: object) -> float:
    if isinstance(cell, (bool, np.bool_)) or not isinstance(cell, (Real, Decimal, str)):
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def shown(cell: object) -> str:
    """A cell in a message: 20 characters at most, on one line."""
    words = f"{cell:g}" if isinstance(cell, float) else " ".join(str(cell).split())
    return words if len(words) <= 20 else words[:20] + "…"


def _is_empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or str(cell).strip() in ("", "<NA>", "NaT")


def text(column: pd.Series) -> list[str]:
    """The cells as text, "" where a cell is empty."""
    return ["" if _is_empty(cell) else " ".join(str(cell).split()) for cell in column.tolist()]


def _wrong(name: str, cell: object, value: float) -> str | None:
    """Why a cell can't be used, or None."""
    smallest, largest = _LOSSES if name == "loss" else (1.0, LARGEST_COUNT)
    if _is_empty(cell):
        return f"{name} is empty"
    if math.isnan(value):
        return f"{name} is NaN" if str(cell).strip().lower() == "nan" else f"{name} {shown(cell)!r} is not a number"
    if math.isinf(value):
        return f"{name} is infinite"
    if value <= 0 or (value < smallest and name != "loss"):
        return f"{name} {shown(cell)}"
    if not smallest <= value <= largest:
        return f"{name} {shown(cell)} is too {'small' if value < smallest else 'large'} to be real"
    return None


def _untrained(frame: pd.DataFrame, loss: FloatArray) -> dict[int, str]:
    """Row number to reason, of losses no better than a uniform guess: runs that diverged or learned nothing.

    Where most rows are like that the column is not in nats a token, and says so elsewhere.
    """
    column = next((name for name in _VOCABULARY if name in frame.columns), None)
    size = numbers(frame[column]) if column else np.full(len(frame), np.nan)
    known = (size > 1) & (size <= LARGEST_COUNT)
    guess = np.where(known, np.log(np.where(known, size, 2.0)), UNIFORM_GUESS)
    usable = (loss >= _LOSSES[0]) & (loss <= _LOSSES[1])
    above = usable & (loss >= guess)
    if above.sum() * 2 >= usable.sum():
        return {}
    return {
        int(at) + 1: f"loss {loss[at]:.4g} is no better than a uniform guess over "
        + (f"its {size[at]:.0f} tokens ({guess[at]:.4g}): diverged" if known[at] else "any vocabulary: diverged")
        for at in np.flatnonzero(above)
    }


def rejections(
    frame: pd.DataFrame, used: Mapping[str, str], values: Mapping[str, FloatArray], malformed: Mapping[int, str]
) -> dict[int, str]:
    """Row number to why it is rejected. ``used`` names the column of each field, ``values`` its cells as numbers."""
    reasons = dict(malformed)
    status = [cell.lower() for cell in text(frame["status"])] if "status" in frame.columns else [""] * len(frame)
    cells = {name: frame[column].tolist() for name, column in used.items()}
    for position in range(len(frame)):
        row = position + 1
        if row in reasons:
            continue
        if status[position] == "diverged":
            reasons[row] = "diverged"
            continue
        for name in used:
            wrong = _wrong(name, cells[name][position], float(values[name][position]))
            if wrong:
                reasons[row] = wrong
                break
        else:
            if status[position] not in _ENDED_WELL:
                reasons[row] = f"status is {shown(status[position])!r}, not finished"
    for row, reason in _untrained(frame, values["loss"]).items():
        reasons.setdefault(row, reason)
    return reasons | _duplicates(frame, used, values, reasons)


def _duplicates(
    frame: pd.DataFrame, used: Mapping[str, str], values: Mapping[str, FloatArray], rejected: Mapping[int, str]
) -> dict[int, str]:
    """Row number to reason, of rows that repeat an earlier one in every field and in what identifies a run."""
    identity = [text(frame[name]) for name in _IDENTITY if name in frame.columns]
    seen: dict[tuple[object, ...], int] = {}
    repeated = {}
    for position in range(len(frame)):
        row = position + 1
        if row in rejected:
            continue
        point = tuple(float(values[name][position]) for name in used), tuple(column[position] for column in identity)
        first = seen.setdefault(point, row)
        if first != row:
            repeated[row] = f"same as row {first}"
    return repeated


def left_out(frame: pd.DataFrame) -> tuple[np.ndarray, list[Diagnostic]]:
    """Rows that are fine but not for fitting: hold-outs, and losses before the cooldown beside losses after it."""
    left_out = np.zeros(len(frame), dtype=bool)
    notes = []
    if "role" in frame.columns:
        roles = [cell.lower().replace("_", "-") for cell in text(frame["role"])]
        left_out |= np.isin(roles, ["hold-out", "holdout", "held-out"])
        if left_out.any():
            notes.append(
                Diagnostic(
                    severity="note",
                    code="hold-out",
                    message=f"{int(left_out.sum())} hold-out rows are kept out of the fit, to be predicted",
                )
            )
    if "phase" in frame.columns:
        phases = np.array([cell.lower() for cell in text(frame["phase"])], dtype=object)
        stable = (phases == "stable") & ~left_out
        if stable.any() and np.isin(phases, ["cooled", "final"]).any():
            left_out |= stable
            message = (
                f"{int(stable.sum())} rows measured before their cooldown are left out: the loss under a constant "
                "learning rate and after a cooldown are not one law"
            )
            notes.append(Diagnostic(severity="note", code="stable-phase", message=message))
    return left_out, notes
