"""What the envelope chooses among: at each compute, the runs or training curves that could have the lowest loss there.

Shapes: n runs, U units (a training curve, or a run that is on none), B compute bins, M candidates in the fullest bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scaling.laws.law import FloatArray
from scaling.table import Table, budget_levels

__all__ = ["ComputeBins", "Source", "budget_of_runs", "compute_bins", "units"]

Source = Literal["curves", "budgets", "runs"]

_CURVE_POINTS = 6
"""Losses that make a training curve: between fewer, interpolation says little."""
_FEWEST_CURVES = 3
_BINS_PER_DECADE = 20
_MOST_BINS = 200
_RUNS_PER_BUDGET = 4
_BUDGET_WIDTH = 0.25
"""Of the step between budgets, at most."""
_RUNS_PER_BIN = 8
"""Of runs with no common budgets: fewer leave the lowest loss to chance, more smear the compute."""


@dataclass(frozen=True)
class ComputeBins:
    """The candidates of every bin in order of size, (B, M) each; a bin with fewer than M is filled up with infinite
    losses."""

    source: Source
    ln_flops: FloatArray
    ln_params: FloatArray
    ln_tokens: FloatArray
    log_loss: FloatArray
    unit: NDArray[np.int64]

    @property
    def present(self) -> NDArray[np.bool_]:
        """(B, M)"""
        return np.isfinite(self.log_loss)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Distinct sizes in each bin, (B,)."""
        pairs = zip(self.ln_params, self.present, strict=True)
        return np.array([len(np.unique(ln_params[present])) for ln_params, present in pairs])

    @property
    def middle(self) -> FloatArray:
        """ln C of each bin, (B,): the mean of its candidates'."""
        return np.asarray(np.where(self.present, self.ln_flops, 0.0).sum(axis=1) / self.present.sum(axis=1))

    @property
    def smallest(self) -> FloatArray:
        """ln N, (B,)."""
        return np.asarray(self.ln_params[:, 0])

    @property
    def largest(self) -> FloatArray:
        """ln N, (B,)."""
        return np.asarray(self.ln_params.max(axis=1, where=self.present, initial=-np.inf))

    @property
    def cell(self) -> FloatArray:
        """Width in ln N of what each candidate's size stands for, (B, M): half of the way to either neighbour."""
        width = np.zeros_like(self.ln_params)
        for at, present in enumerate(self.present):
            sizes, place = np.unique(self.ln_params[at, present], return_inverse=True)
            if len(sizes) > 1:
                width[at, present] = np.gradient(sizes)[place]
        return width


def budget_of_runs(table: Table) -> NDArray[np.int64]:
    """The budget of each run (n,): the table's own ``budget`` column if it has one, else runs of nearly equal
    compute."""
    if "budget" in table.labels and table.labels["budget"].astype(str).str.strip().ne("").all():
        return np.unique(table.labels["budget"].astype(str).to_numpy(dtype=object), return_inverse=True)[1]
    return budget_levels(table.flops)


def units(table: Table) -> NDArray[np.int64]:
    """What each run belongs to, (n,) integers from 0: its trunk, or its run where rows share one, or its size."""
    for name in ("trunk_key", "run_key"):
        if name in table.labels:
            keys = table.labels[name].to_numpy(dtype=object)
            if len(set(keys)) < len(keys):
                return np.unique(keys, return_inverse=True)[1]
    return np.unique(table.params, return_inverse=True)[1]


def compute_bins(table: Table) -> ComputeBins:
    """Training curves interpolated at common FLOPs where most rows are on one; else the runs of each budget; else the
    runs in bins of equal width."""
    unit, ln_flops = units(table), np.log(table.flops)
    levels_U = np.bincount(np.unique(np.column_stack((unit, ln_flops)), axis=0)[:, 0].astype(np.int64))
    curves = np.flatnonzero(levels_U >= _CURVE_POINTS)
    if len(curves) >= _FEWEST_CURVES and 2 * np.isin(unit, curves).sum() >= len(table):
        return _from_curves(table, unit, curves)
    budget = budget_of_runs(table)
    if len(table) >= _RUNS_PER_BUDGET * len(np.unique(budget)) and _apart(ln_flops, budget):
        return _of_rows(table, unit, budget, "budgets")
    bins = max(1, len(table) // _RUNS_PER_BIN)
    inner = np.linspace(ln_flops.min(), ln_flops.max(), bins + 1)[1:-1]
    return _of_rows(table, unit, np.searchsorted(inner, ln_flops, side="right"), "runs")


def _apart(ln_flops: FloatArray, budget: NDArray[np.int64]) -> bool:
    """Whether budgets are where compute clusters, and no mere cuts of a continuum."""
    members = [ln_flops[budget == value] for value in np.unique(budget)]
    steps = np.diff(np.sort([float(each.mean()) for each in members]))
    width = float(np.median([np.ptp(each) for each in members]))
    return len(steps) == 0 or width <= _BUDGET_WIDTH * float(np.median(steps))


def _of_rows(table: Table, unit: NDArray[np.int64], bin_N: NDArray[np.int64], source: Source) -> ComputeBins:
    """The rows themselves, each at its own FLOPs, in the bins they are given, (n,)."""
    members = [np.flatnonzero(bin_N == value) for value in np.unique(bin_N)]
    members.sort(key=lambda rows: float(table.flops[rows].mean()))
    columns = (np.log(table.flops), np.log(table.params), np.log(table.tokens), np.log(table.loss))
    return _padded(source, [(unit[rows], *(column[rows] for column in columns)) for rows in members])


def _from_curves(table: Table, unit: NDArray[np.int64], curves: NDArray[np.int64]) -> ComputeBins:
    """Each curve's ln D and ln L by interpolation in ln C, at FLOPs evenly spaced in ln C, no denser than the curves'
    points."""
    ln_flops = np.log(table.flops)
    traced = []
    for value in curves:
        rows = np.flatnonzero(unit == value)
        x, member, count = np.unique(ln_flops[rows], return_inverse=True, return_counts=True)
        size, tokens, loss = (
            np.bincount(member, weights=np.log(column[rows])) / count
            for column in (table.params, table.tokens, table.loss)
        )
        traced.append((value, x, float(size.mean()), tokens, loss))
    low, high = min(x[0] for _, x, *_ in traced), max(x[-1] for _, x, *_ in traced)
    spacing = max(
        math.log(10) / _BINS_PER_DECADE,
        float(np.median(np.concatenate([np.diff(x) for _, x, *_ in traced]))),
        (high - low) / _MOST_BINS,
    )
    bins = []
    for at in np.linspace(low, high, max(2, round((high - low) / spacing) + 1)):
        there = [
            (value, at, size, np.interp(at, x, tokens), np.interp(at, x, loss))
            for value, x, size, tokens, loss in traced
            if x[0] <= at <= x[-1]
        ]
        if there:
            bins.append(tuple(np.array(column) for column in zip(*there, strict=True)))
    return _padded("curves", bins)


def _padded(source: Source, bins: list[tuple[NDArray[np.int64] | FloatArray, ...]]) -> ComputeBins:
    """Bins of (unit, ln C, ln N, ln D, ln L), each (m,), as matrices."""
    most = max(len(unit) for unit, *_ in bins)
    unit_BM = np.zeros((len(bins), most), dtype=np.int64)
    rest = [np.full((len(bins), most), fill) for fill in (0.0, np.inf, 0.0, np.inf)]
    for at, (unit, *columns) in enumerate(bins):
        order = np.argsort(columns[1], kind="stable")
        unit_BM[at, : len(order)] = unit[order]
        for matrix, column in zip(rest, columns, strict=True):
            matrix[at, : len(order)] = column[order]
    ln_flops, ln_params, ln_tokens, log_loss = rest
    return ComputeBins(source, ln_flops, ln_params, ln_tokens, log_loss, unit_BM)
