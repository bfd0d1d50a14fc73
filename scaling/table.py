"""Reads a table of runs, checks every row, and rejects by number what cannot be fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling.compute import flops_6nd
from scaling.errors import UserError
from scaling.fit import Diagnostic, ObservationCounts, RejectedRow
from scaling.laws.law import FloatArray, IntArray
from scaling.observation import FlopsConvention, ParamsConvention
from scaling.table_conventions import loss_unit, mixed_params, mixed_ratios, mixed_sources, untuned
from scaling.table_file import load_rows
from scaling.table_rows import LARGEST_COUNT, left_out, numbers, rejections, text

__all__ = ["BUDGET_TOLERANCE", "FIELDS", "Table", "budget_levels", "read_table", "usual_names"]

BUDGET_TOLERANCE = 0.10
"""Runs whose compute differs by less than this are of one budget: batches are whole, so no two runs are quite equal."""

FIELDS = ("params", "tokens", "loss", "flops")
"""What a table is fitted by; its last may be left out."""
_PARAMS_NAMES: dict[ParamsConvention, tuple[str, ...]] = {
    "total": ("params_total", "params", "n_params", "N", "parameters"),
    "nonembedding": ("params_nonembedding", "params_no_embed", "params", "n_params", "N", "parameters"),
    "with-head": ("params_with_head", "params", "n_params", "N", "parameters"),
}
_NAMES: dict[str, tuple[str, ...]] = {
    "tokens": ("tokens", "n_tokens", "D", "training_tokens"),
    "loss": ("loss_nats", "loss", "val_loss", "L"),
    "flops": ("flops", "C", "training_flops", "flops_exact"),
}
_LABELS = ("run_key", "trunk_key", "study", "label", "phase", "role", "seed", "bits_per_byte", "context", "budget")
_PARAMS_CONVENTIONS = ("total", "nonembedding", "with-head")


@dataclass(frozen=True)
class Table:
    """The rows that can be fitted, sorted by FLOPs, then parameters, tokens and loss, so that row order never matters.

    All arrays are (n,) float64: parameters, tokens, training FLOPs, held-out loss in nats a token.
    """

    params: FloatArray
    tokens: FloatArray
    flops: FloatArray
    loss: FloatArray
    rows: NDArray[np.int64]
    """The number of each run's row in the table it was read from, from 1."""
    labels: pd.DataFrame = field(repr=False)
    """The study's own columns that are present (run_key, trunk_key, bits_per_byte, budget, …), one row a used run: text
    without missing cells, but for bits_per_byte."""
    counts: ObservationCounts
    diagnostics: tuple[Diagnostic, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def trunks(self) -> IntArray | None:
        """A number for each run, the same for branches of one trunk, (n,); None if no two share one."""
        if "trunk_key" not in self.labels:
            return None
        trunk_t, trunk_n = np.unique(self.labels["trunk_key"].astype(str), return_inverse=True)
        return trunk_n.astype(np.int64) if len(trunk_t) < len(trunk_n) else None

    @property
    def params_convention(self) -> ParamsConvention:
        return self.counts.params_convention

    @property
    def flops_convention(self) -> FlopsConvention:
        return self.counts.flops_convention

    @property
    def flops_per_param_token(self) -> float:
        """c of C = c·N·D: 6 under 6nd, else the median of flops / (N·D) over these runs."""
        if self.flops_convention == "6nd":
            return 6.0
        return float(np.median(self.flops / (self.params * self.tokens)))


def budget_levels(flops: FloatArray, tolerance: float = BUDGET_TOLERANCE) -> np.ndarray:
    """The budget each run belongs to, (n,) integers from 0 (smallest).

    Sorted log FLOPs are cut wherever the next run lies over ``tolerance`` above the previous one, or over twice that
    above the first of its group, so that a continuum of compute is not chained into one budget.
    """
    order = np.argsort(flops, kind="stable")
    step = math.log1p(tolerance)
    levels = np.empty(len(flops), dtype=np.int64)
    level, first, previous = -1, -math.inf, -math.inf
    for index in order:
        value = math.log(flops[index])
        if value - previous > step or value - first > 2 * step:
            level, first = level + 1, value
        levels[index], previous = level, value
    return levels


def usual_names(params_convention: ParamsConvention = "total") -> dict[str, tuple[str, ...]]:
    """The columns that are tried for each of ``FIELDS``, in this order."""
    return {"params": _PARAMS_NAMES[params_convention], **_NAMES}


def _column(frame: pd.DataFrame, name: str, columns: Mapping[str, str], candidates: tuple[str, ...]) -> str | None:
    """The column that holds ``name``; None if nothing of the usual names is there."""
    if name in columns:
        if columns[name] not in frame.columns:
            raise UserError(
                f"columns: {name}={columns[name]} names no column of the table (it has {_present(frame)}); "
                f"give one of these, as in --columns {name}=COLUMN"
            )
        return columns[name]
    return next((candidate for candidate in candidates if candidate in frame.columns), None)


def _present(frame: pd.DataFrame) -> str:
    names = [str(name) for name in frame.columns]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none"


def _flops(
    frame: pd.DataFrame,
    column: str | None,
    params: FloatArray,
    tokens: FloatArray,
    usable: np.ndarray,
    convention: FlopsConvention | None,
) -> tuple[FloatArray, FlopsConvention, list[Diagnostic]]:
    """The FLOPs to fit with, under which convention, and what to say about the choice."""
    with np.errstate(over="ignore", invalid="ignore"):
        estimated = flops_6nd(params, tokens)
    if convention == "6nd" or column is None:
        if convention == "exact" and column is None:
            raise UserError(
                f"flops_convention is exact, but the table has no column of FLOPs (it has {_present(frame)}); "
                "name it with --columns flops=COLUMN, or use --flops-convention 6nd"
            )
        return estimated, "6nd", []
    given = numbers(frame[column])
    # Beyond what a count can be, the ratio of the two would overflow.
    known = usable & (given > 0) & (given <= LARGEST_COUNT) & (estimated >= 1) & np.isfinite(estimated)
    if convention == "exact" or not known.any():
        return given, "exact", []
    ratio = given[known] / estimated[known]
    if np.all(np.abs(ratio - 1) < 0.01):
        return np.where(known, given, estimated), "6nd", []
    # A study was planned in budgets of one convention; the other smears them. Keep the one with fewer distinct budgets.
    budgets = {
        name: int(budget_levels(values[known]).max()) + 1 for name, values in (("exact", given), ("6nd", estimated))
    }
    chosen: FlopsConvention = "6nd" if budgets["6nd"] < budgets["exact"] else "exact"
    message = (
        f"FLOPs are taken as {chosen}: column {column} is {ratio.min():.2f} to {ratio.max():.2f} times 6ND and makes "
        f"{budgets['exact']} budgets of these runs where 6ND makes {budgets['6nd']}"
    )
    note = Diagnostic(severity="note", code="flops-convention", message=message)
    return (given if chosen == "exact" else estimated), chosen, [note]


def _labels(frame: pd.DataFrame, rows: NDArray[np.int64]) -> pd.DataFrame:
    """The study's own columns: bits per byte and context as numbers, the rest as text, each once and without gaps."""
    labels: dict[str, pd.Series] = {}
    for name in (name for name in _LABELS if name in frame.columns):
        if name in ("bits_per_byte", "context"):
            labels[name] = pd.Series(numbers(frame[name]))
            continue
        cells = text(frame[name])
        if name == "trunk_key":  # a run that names no trunk is its own
            cells = [cell or f"row {row}" for cell, row in zip(cells, rows, strict=True)]
        labels[name] = pd.Series(cells, dtype=object)
    return pd.DataFrame(labels)


def _conventions(
    frame: pd.DataFrame,
    columns: Mapping[str, str | None],
    values: Mapping[str, FloatArray],
    keep: np.ndarray,
    convention: ParamsConvention,
) -> list[Diagnostic]:
    """What the fitted rows' numbers and other columns say about how they were measured."""
    rows = np.flatnonzero(keep) + 1
    params, tokens, loss = (values[name][keep] for name in ("params", "tokens", "loss"))
    bits = numbers(frame["bits_per_byte"])[keep] if "bits_per_byte" in frame.columns else None
    told = mixed_sources(frame, keep)
    told.extend(untuned(frame, keep, params, tokens))
    told.extend(mixed_params(frame, str(columns["params"]), params, rows, convention))
    if columns["flops"] is not None:
        given = numbers(frame[columns["flops"]])[keep]
        known = (given > 0) & (given <= LARGEST_COUNT)
        if known.any():
            ratio = given[known] / flops_6nd(params[known], tokens[known])
            told.extend(mixed_ratios(str(columns["flops"]), ratio, params[known], rows[known]))
    told.extend(loss_unit(str(columns["loss"]), loss, flops_6nd(params, tokens), bits))
    return told


def read_table(
    source: Path | str | pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    params_convention: ParamsConvention = "total",
    flops_convention: FlopsConvention | None = None,
) -> Table:
    """The runs of a CSV, a parquet file or a frame that can be fitted.

    ``columns`` maps params, tokens, loss and flops to the table's own names; without it the usual names are tried, and
    the project's ``Observations`` columns under ``params_convention``. Without ``flops_convention`` a column of FLOPs
    is used if there is one (as "6nd" if it is within 1% of 6ND; else under whichever of exact and 6ND gives the fewer
    distinct budgets), and 6ND otherwise. Rows with role hold-out are not for fitting; rows that can't be used are
    rejected by number (from 1, the header and blank lines not counted) with a reason.

    Raises ``UserError`` for a file that can't be read, a missing column, or no usable row.
    """
    if params_convention not in _PARAMS_CONVENTIONS:
        raise UserError(f"params_convention is {params_convention!r}: use one of {', '.join(_PARAMS_CONVENTIONS)}")
    if flops_convention not in (None, "exact", "6nd"):
        raise UserError(f"flops_convention is {flops_convention!r}: use exact or 6nd")
    columns = dict(columns or {})
    unknown = [name for name in columns if name not in FIELDS]
    if unknown:
        raise UserError(f"columns: {unknown[0]} is not a field; the fields are {', '.join(FIELDS)}")
    frame, malformed = load_rows(source)
    candidates = usual_names(params_convention)
    found = {name: _column(frame, name, columns, candidates[name]) for name in FIELDS}
    missing = [name for name in ("params", "tokens", "loss") if found[name] is None]
    if missing:
        remedy = ",".join(f"{name}=COLUMN" for name in missing)
        raise UserError(
            f"no column for {', '.join(missing)} (the table has {_present(frame)}); say which with --columns {remedy}"
        )
    needed = {name: column for name, column in found.items() if column is not None}
    values = {name: numbers(frame[column]) for name, column in needed.items()}
    unfitted, diagnostics = left_out(frame)
    flops, convention, notes = _flops(
        frame, found["flops"], values["params"], values["tokens"], ~unfitted, flops_convention
    )
    if convention == "6nd":
        needed.pop("flops", None)  # every row has its 6ND, whatever the column of FLOPs says
    reasons = rejections(frame, needed, values, malformed)
    rejected = tuple(
        RejectedRow(row=row, reason=reason) for row, reason in sorted(reasons.items()) if not unfitted[row - 1]
    )
    keep = ~unfitted
    keep[[row - 1 for row in reasons]] = False
    counts = ObservationCounts(
        rows=len(frame),
        used=int(keep.sum()),
        rejected=rejected,
        params_convention=params_convention,
        flops_convention=convention,
    )
    if not keep.any():
        first = f"; row {rejected[0].row}: {rejected[0].reason}" if rejected else ""
        raise UserError(f"none of the {len(frame)} rows can be fitted{first}; give runs with params, tokens and a loss")
    arrays = [array[keep] for array in (values["params"], values["tokens"], flops, values["loss"])]
    rows = np.flatnonzero(keep) + 1
    order = np.lexsort((arrays[3], arrays[1], arrays[0], arrays[2]))
    params, tokens, flops, loss = (array[order] for array in arrays)
    labels = _labels(frame.iloc[rows[order] - 1], rows[order])
    told = (*diagnostics, *notes, *_conventions(frame, found, values, keep, params_convention))
    return Table(params, tokens, flops, loss, rows[order], labels, counts, told)
