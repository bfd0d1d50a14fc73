"""Laws of the learning rate and the batch from a sweep of both at several sizes and lengths.

Every size and length (a cell) has its own valley of loss over ln lr and ln batch. Near the bottom it is a quadratic
surface, whose minimum is the cell's optimum; a cell whose best run lies at the edge of what was tried has none. The
optima are then powers of the sizes, by least squares weighted with each optimum's own variance plus what the optima
scatter around the law. A law is judged by the loss it costs, not by its exponents: those that fit equally well differ
widely (on Step Law's own grid by 0.2 with the width of the window).

Shapes: n runs, J cells, P constants of a law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

from scaling.errors import UserError
from scaling.laws.hyperparameter import HyperparameterLaw, sizes_of
from scaling.laws.law import FloatArray
from scaling.laws.step_law import STEP_LAW, STEP_LAW_BATCH
from scaling.quantity import format_count
from scaling.record import Interval, Record

__all__ = ["CellOptimum", "FittedLaw", "HyperparameterFit", "HyperparameterSweep", "excess_loss", "fit_hyperparameters"]

_WINDOW = 0.01
"""Runs within this share of the cell's best loss are near the bottom: ten times the noise between runs of Step Law's
grid, where the surface's residuals are 0.1%."""
_FEWEST_NEAR = 9
_FEWEST_LEVELS = 3
_FEWEST_CELLS = 6
"""With an optimum: one can be left out and the three constants of a law have two to spare."""
_LEAST_ACROSS = 0.1
"""SD of the logarithms of the sizes along the direction in which they vary least, for exponents to be told apart."""


@dataclass(frozen=True, eq=False)
class HyperparameterSweep:
    """Runs of a sweep, (n,) each; a loss that is not finite is a run that diverged.

    ``params`` without embeddings; ``batch_tokens`` in tokens a step.
    """

    params: FloatArray
    tokens: FloatArray
    learning_rate: FloatArray
    batch_tokens: FloatArray
    loss: FloatArray

    def __post_init__(self) -> None:
        rows = len(np.atleast_1d(self.loss))
        for name in ("params", "tokens", "learning_rate", "batch_tokens", "loss"):
            column = np.asarray(getattr(self, name), dtype=np.float64)
            if column.shape != (rows,):
                raise UserError(f"{name} must be one number for each of {rows} runs")
            wrong = ~(np.isfinite(column) & (column > 0)) if name != "loss" else column <= 0
            if wrong.any():
                row = int(np.argmax(wrong))
                raise UserError(f"run {row + 1}: {name} {column[row]:g} must be positive; correct the row or drop it")
            object.__setattr__(self, name, np.where(np.isfinite(column), column, np.inf))

    def cells(self) -> list[NDArray[np.int64]]:
        """The runs of each size and length, in ascending order of both."""
        _, member = np.unique(np.column_stack((self.params, self.tokens)), axis=0, return_inverse=True)
        return [np.flatnonzero(member.ravel() == cell) for cell in range(int(member.max()) + 1)]


class CellOptimum(Record):
    """The bottom of one cell's valley. ``best`` is the loss of the best run tried."""

    params: float
    tokens: float
    runs: int
    best: float
    status: Literal["ok", "edge", "curvature", "too few"]
    reason: str | None = None
    learning_rate: Interval | None = None
    batch_tokens: Interval | None = None
    ln_variances: tuple[float, float] | None = None
    """Of ln lr and ln batch, from the misfit of the surface."""


@dataclass(frozen=True, eq=False)
class FittedLaw:
    """One law through the optima of the cells."""

    law: HyperparameterLaw
    theta: FloatArray
    parameters: dict[str, Interval]
    covariance: FloatArray
    """Of (ln k, exponents), (P, P)."""
    scatter: float
    """SD of the logarithm of an optimum around the law, beyond its own error."""
    spare: int
    """Cells less constants: the degrees of freedom of the intervals."""

    def predict(self, sizes: dict[str, float], level: float) -> Interval:
        """The value where a new optimum would lie, at ``level``."""
        x = np.array([1.0, *(math.log(sizes[name]) for name in self.law.inputs)])
        value = float(self.law.predict(self.theta, *(sizes[name] for name in self.law.inputs)))
        sd = math.sqrt(float(x @ self.covariance @ x) + self.scatter**2)
        factor = math.exp(float(student.ppf(0.5 + level / 2, self.spare)) * sd)
        return Interval(estimate=value, low=value / factor, high=value * factor)


@dataclass(frozen=True, eq=False)
class HyperparameterFit:
    """Both laws, the optima behind them, and what they cost."""

    rate: FittedLaw
    batch: FittedLaw
    cells: tuple[CellOptimum, ...]
    excess: FloatArray
    """(J,): loss of the run nearest to what the laws say over the cell's best, less one; infinite if it diverged, NaN
    if the cell's runs all did."""
    left_out_excess: FloatArray
    """(J,): the same, of laws fitted without the cell."""
    ranges: dict[str, tuple[float, float]]
    level: float

    def predict(self, params: float, tokens: float) -> tuple[Interval, Interval]:
        """Learning rate and batch in tokens; :class:`UserError` outside the sizes and lengths of the sweep."""
        sizes = sizes_of(params, tokens)
        self.rate.law.refuse_outside(self.ranges, sizes)
        return self.rate.predict(sizes, self.level), self.batch.predict(sizes, self.level)


def fit_hyperparameters(
    sweep: HyperparameterSweep,
    *,
    rate: HyperparameterLaw = STEP_LAW,
    batch: HyperparameterLaw = STEP_LAW_BATCH,
    level: float = 0.9,
) -> HyperparameterFit:
    """Laws of the forms ``rate`` and ``batch`` through the optima of a sweep; their published constants play no part.

    Raises :class:`UserError` where too few cells have an optimum, or their sizes do not tell the exponents apart.
    """
    members = sweep.cells()
    cells = tuple(_optimum(sweep, runs, level) for runs in members)
    found = [cell for cell in cells if cell.status == "ok"]
    if len(found) < _FEWEST_CELLS:
        lost = "; ".join(
            f"{format_count(cell.params)} on {format_count(cell.tokens)}: {cell.reason}"
            for cell in cells
            if cell.status != "ok"
        )
        raise UserError(
            f"{len(found)} of {len(cells)} cells have an optimum and {_FEWEST_CELLS} are needed{': ' if lost else ''}"
            f"{lost}; sweep rate and batch past the best at more sizes and lengths"
        )
    fitted = _fit_law(rate, found, 0, level), _fit_law(batch, found, 1, level)
    left_out = []
    for runs, cell in zip(members, cells, strict=True):
        others = [other for other in found if other is not cell]
        laws = _fit_law(rate, others, 0, level), _fit_law(batch, others, 1, level)
        left_out.append(_excess(sweep, runs, *_said(laws, cell)))
    return HyperparameterFit(
        rate=fitted[0],
        batch=fitted[1],
        cells=cells,
        excess=np.array(
            [_excess(sweep, runs, *_said(fitted, cell)) for runs, cell in zip(members, cells, strict=True)]
        ),
        left_out_excess=np.array(left_out),
        ranges={
            "params": (float(sweep.params.min()), float(sweep.params.max())),
            "tokens": (float(sweep.tokens.min()), float(sweep.tokens.max())),
        },
        level=level,
    )


def _said(laws: tuple[FittedLaw, FittedLaw], cell: CellOptimum) -> tuple[float, float]:
    """Learning rate and batch of one cell by both laws."""
    sizes = sizes_of(cell.params, cell.tokens)
    rate, batch = (float(fit.law.predict(fit.theta, *(sizes[name] for name in fit.law.inputs))) for fit in laws)
    return rate, batch


def excess_loss(sweep: HyperparameterSweep, learning_rate: FloatArray, batch_tokens: FloatArray) -> FloatArray:
    """(J,): the loss of the run nearest to a rate and batch said for each cell, over the cell's best, less one.

    Nearest in (ln lr, ln batch); cells in the order of ``sweep.cells()``.
    """
    said = zip(sweep.cells(), learning_rate, batch_tokens, strict=True)
    return np.array([_excess(sweep, runs, float(rate), float(batch)) for runs, rate, batch in said])


def _excess(sweep: HyperparameterSweep, runs: NDArray[np.int64], rate: float, batch: float) -> float:
    distance = np.log(sweep.learning_rate[runs] / rate) ** 2 + np.log(sweep.batch_tokens[runs] / batch) ** 2
    loss = sweep.loss[runs]
    return float(loss[np.argmin(distance)] / loss.min() - 1) if np.isfinite(loss.min()) else math.nan


def _optimum(sweep: HyperparameterSweep, runs: NDArray[np.int64], level: float) -> CellOptimum:
    """The bottom of a quadratic surface through the runs near a cell's best."""
    rate, batch, loss = sweep.learning_rate[runs], sweep.batch_tokens[runs], sweep.loss[runs]
    best = int(np.argmin(loss))
    u_n, v_n = np.log(rate / rate[best]), np.log(batch / batch[best])
    near = loss <= (1 + _WINDOW) * loss[best]

    def cell(status: Literal["ok", "edge", "curvature", "too few"], reason: str | None = None) -> CellOptimum:
        return CellOptimum(
            params=float(sweep.params[runs[0]]), tokens=float(sweep.tokens[runs[0]]), runs=len(runs),
            best=float(loss[best]), status=status, reason=reason,
        )  # fmt: skip

    if not np.isfinite(loss[best]):
        return cell("too few", "every run diverged")
    for name, offset_n in (("learning rate", u_n), ("batch", v_n)):
        if offset_n.min() >= 0 or offset_n.max() <= 0:
            side = "lowest" if offset_n.min() >= 0 else "highest"
            return cell("edge", f"the best {name} is the {side} tried")
    levels = min(len(np.unique(u_n[near].round(2))), len(np.unique(v_n[near].round(2))))
    if near.sum() < _FEWEST_NEAR or levels < _FEWEST_LEVELS:
        return cell("too few", f"{near.sum()} runs lie within {_WINDOW:.0%} of the best; {_FEWEST_NEAR} are needed")
    u, v, y = u_n[near], v_n[near], np.log(loss[near] / loss[best])
    design = np.column_stack((np.ones_like(u), u, v, u * u, u * v, v * v))
    c, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    hessian = np.array([[2 * c[3], c[4]], [c[4], 2 * c[5]]])
    if rank < design.shape[1] or np.linalg.eigvalsh(hessian)[0] <= 0:
        return cell("curvature", "the losses near the best are no valley")
    at = -np.linalg.solve(hessian, c[1:3])
    if not (u.min() <= at[0] <= u.max() and v.min() <= at[1] <= v.max()):
        return cell("curvature", "the bottom of the valley lies outside the runs near the best")
    # What moves the bottom: H·(d at) = −(d gradient + d H·at).
    moves = np.array([[0, 1, 0, 2 * at[0], at[1], 0], [0, 0, 1, 0, at[0], 2 * at[1]]])
    slope = -np.linalg.solve(hessian, moves)
    spare = max(1, len(y) - design.shape[1])
    noise = float(((y - design @ c) ** 2).sum()) / spare
    variances = np.diag(slope @ np.linalg.inv(design.T @ design) @ slope.T) * noise
    reach = np.exp(float(student.ppf(0.5 + level / 2, spare)) * np.sqrt(variances))
    bottom = np.exp(at) * (rate[best], batch[best])
    intervals = [
        Interval(estimate=float(x), low=float(x / f), high=float(x * f)) for x, f in zip(bottom, reach, strict=True)
    ]
    return cell("ok").model_copy(
        update={
            "learning_rate": intervals[0],
            "batch_tokens": intervals[1],
            "ln_variances": (float(variances[0]), float(variances[1])),
        }
    )


def _fit_law(law: HyperparameterLaw, cells: list[CellOptimum], which: int, level: float) -> FittedLaw:
    """``law`` through the optima, of the rate (``which`` 0) or of the batch (1)."""
    spare = len(cells) - len(law.parameters)
    sizes = [sizes_of(cell.params, cell.tokens) for cell in cells]
    ln_x = np.array([[math.log(size[name]) for name in law.inputs] for size in sizes])
    across = np.linalg.svd(ln_x - ln_x.mean(axis=0), compute_uv=False)[-1] / math.sqrt(len(cells))
    if across < _LEAST_ACROSS:
        raise UserError(
            f"the exponents of {law.formula} can't be told apart: in these cells {' and '.join(law.inputs)} hardly "
            "vary, or vary together; add cells at other sizes and lengths"
        )
    optima = [cell.learning_rate if which == 0 else cell.batch_tokens for cell in cells]
    ln_y = np.log([optimum.estimate for optimum in optima if optimum is not None])
    variance = np.array([cell.ln_variances[which] for cell in cells if cell.ln_variances is not None])
    design = np.column_stack((np.ones(len(cells)), ln_x))
    scatter2 = _scatter(design, ln_y, variance)
    theta, covariance = _weighted(design, ln_y, 1 / (variance + scatter2))
    reach = float(student.ppf(0.5 + level / 2, spare)) * np.sqrt(np.diag(covariance))
    known, low, high = (law.theta_of(theta + side * reach) for side in (0, -1, 1))
    return FittedLaw(
        law=law,
        theta=known,
        parameters={
            name: Interval(estimate=float(known[i]), low=float(low[i]), high=float(high[i]))
            for i, name in enumerate(law.NAMES)
        },
        covariance=covariance,
        scatter=math.sqrt(scatter2),
        spare=spare,
    )


def _weighted(design: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted least squares: the solution and its covariance where the weights are inverse variances."""
    root = np.sqrt(weight)
    solution = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
    return np.asarray(solution), np.asarray(np.linalg.inv((design * weight[:, None]).T @ design))


def _scatter(design: FloatArray, y: FloatArray, variance: FloatArray) -> float:
    """Variance of the optima around the law beyond their own: what makes χ² its degrees of freedom (Paule & Mandel
    1982), and zero where they scatter less than that."""
    spare: int = len(y) - design.shape[1]

    def surplus(scatter2: float) -> float:
        weight = 1 / (variance + scatter2)
        solution, _ = _weighted(design, y, weight)
        misfit = y - design @ solution
        return float((weight * misfit * misfit).sum()) - spare

    if surplus(0.0) <= 0:
        return 0.0
    root: float = brentq(surplus, 0.0, 100.0)
    return root
