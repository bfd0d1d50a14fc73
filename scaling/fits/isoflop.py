"""Approach 2 of Hoffmann et al. (2203.15556): the best size on each iso-FLOP line, then N* and D* against compute.

Per budget a parabola of loss in ln N is fitted over a *local* window around the lowest run: over a wide window the
asymmetry of the line moves the minimum (2603.22339). ln N* and ln D* then follow lines in ln C, each optimum weighted
by the inverse of its variance. Intervals redraw the runs' noise, pooled over budgets.

Shapes: K draws, M usable budgets, n runs of one budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scaling.fit import Diagnostic, IsoflopFit, IsoflopOptimum
from scaling.fits.bootstrap import interval_of, stored_draws
from scaling.laws.law import FloatArray
from scaling.record import Interval
from scaling.table import Table, budget_levels

__all__ = ["fit_isoflop"]

_FEWEST_RUNS = 4
"""Three runs fix a parabola exactly, noise and all, and could never show that it is a wrong one."""
_WINDOW = math.log(4.0)
"""Sizes within this of the lowest run's are used, and at least the nearest five: narrower is noise, wider is bias."""
_WINDOW_RUNS = 5
_EXP = 700.0

Status = Literal["ok", "edge", "curvature", "too few"]


@dataclass(frozen=True)
class _Line:
    """One budget: its runs (n,) and the parabola c0 + c1 u + c2 u² over ``window`` in u = ln N − centre."""

    flops: float
    ln_params: FloatArray
    ln_tokens: FloatArray
    loss: FloatArray
    status: Status
    window: NDArray[np.int64]
    """Indices of the runs used."""
    centre: float = 0.0
    coefficients: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def design(self) -> FloatArray:
        """(n_window, 3)"""
        offset = self.ln_params[self.window] - self.centre
        return np.column_stack((np.ones_like(offset), offset, offset * offset))

    @property
    def residuals(self) -> FloatArray:
        return np.asarray(self.loss[self.window] - self.design @ np.array(self.coefficients))

    @property
    def minimum(self) -> float:
        return self.centre - self.coefficients[1] / (2 * self.coefficients[2])

    def tokens_at(self, ln_params: FloatArray) -> FloatArray:
        """ln D on this line, between its runs by interpolation and beyond them along C = const."""
        inside = np.clip(ln_params, self.ln_params[0], self.ln_params[-1])
        return np.asarray(np.interp(inside, self.ln_params, self.ln_tokens) - (ln_params - inside))


def _line(flops: FloatArray, params: FloatArray, tokens: FloatArray, loss: FloatArray) -> _Line:
    """The parabola of one budget, or why there is none. A minimum counts only with runs, and higher losses, on both
    sides."""
    order = np.argsort(params, kind="stable")
    x, y, loss = np.log(params[order]), np.log(tokens[order]), loss[order]
    middle = float(np.exp(np.log(flops).mean()))
    sizes = len(np.unique(x))
    everything = np.arange(len(x))
    if len(x) < _FEWEST_RUNS or sizes < _FEWEST_RUNS:
        return _Line(middle, x, y, loss, "too few", everything)
    lowest = int(np.argmin(loss))
    distance = np.abs(x - x[lowest])
    reach = max(_WINDOW, float(np.sort(distance)[min(_WINDOW_RUNS, len(x)) - 1]))
    window = np.flatnonzero(distance <= reach + 1e-9)
    centre = float(x[window].mean())
    c2, c1, c0 = (float(c) for c in np.polyfit(x[window] - centre, loss[window], 2))
    status: Status = "ok"
    if c2 <= 0:
        status = "curvature"
    elif not x[0] < centre - c1 / (2 * c2) < x[-1] or x[lowest] in (x[0], x[-1]):
        status = "edge"
    return _Line(middle, x, y, loss, status, window, centre, (c0, c1, c2))


def _budgets(table: Table) -> np.ndarray:
    """The budget of each run (n,): the table's own ``budget`` column if it has one, else runs of nearly equal
    compute."""
    if "budget" in table.labels and table.labels["budget"].astype(str).str.strip().ne("").all():
        return np.unique(table.labels["budget"].astype(str).to_numpy(dtype=object), return_inverse=True)[1]
    return budget_levels(table.flops)


def _redraw(line: _Line, noise: float, scale_K: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """The minimum's ln N and loss under redrawn noise, (K,) each, kept within one window's width of the runs."""
    design = line.design
    projector = np.linalg.pinv(design)
    shocks_KN = rng.standard_normal((len(scale_K), len(design))) * (noise * scale_K[:, None])
    c0_K, c1_K, c2_K = (np.array(line.coefficients) + shocks_KN @ projector.T).T
    with np.errstate(divide="ignore", invalid="ignore"):
        offset_K = np.where(c2_K > 0, -c1_K / (2 * c2_K), np.inf * -np.sign(c1_K))
    used = line.ln_params[line.window]
    width = float(used[-1] - used[0])
    offset_K = np.clip(np.nan_to_num(offset_K), used[0] - width - line.centre, used[-1] + width - line.centre)
    return line.centre + offset_K, c0_K + c1_K * offset_K + c2_K * offset_K**2


def _power_law(ln_flops_M: FloatArray, values: FloatArray, weight_M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted lines through ``values`` (..., M) over ln C: intercepts (ln k) and slopes, each (...)."""
    weight_M = weight_M / weight_M.sum()
    centre = float(weight_M @ ln_flops_M)
    offset_M = ln_flops_M - centre
    slope = (values * (weight_M * offset_M)).sum(axis=-1) / float(weight_M @ offset_M**2)
    return np.asarray((values * weight_M).sum(axis=-1) - slope * centre), np.asarray(slope)


def _pooled_noise(lines: list[_Line]) -> tuple[float, int]:
    """SD of the noise in loss around the parabolas, in nats, and its degrees of freedom."""
    fitted = [line for line in lines if line.status != "too few"]
    spare = sum(max(0, len(line.window) - 3) for line in fitted)
    squares = sum(float(line.residuals @ line.residuals) for line in fitted)
    return math.sqrt(squares / max(1, spare)), max(1, spare)


def _log_interval(estimate: float, draws_K: FloatArray, level: float) -> Interval:
    """An interval of exp(value), from values in logs; kept within what a float can hold."""
    return interval_of(math.exp(np.clip(estimate, -_EXP, _EXP)), np.exp(np.clip(draws_K, -_EXP, _EXP)), level)


def _optimum(line: _Line, redrawn: tuple[FloatArray, FloatArray] | None, level: float) -> IsoflopOptimum:
    """The record of a budget; ``redrawn`` holds its minimum's ln N and loss under redrawn noise, (K,) each."""
    runs = len(line.loss)
    if line.status == "too few":
        return IsoflopOptimum(flops=line.flops, runs=runs, status=line.status)
    c0, c1, c2 = line.coefficients
    m = line.centre
    polynomial = (c0 - c1 * m + c2 * m * m, c1 - 2 * c2 * m, c2)
    if line.status != "ok" or redrawn is None:
        return IsoflopOptimum(flops=line.flops, runs=runs, status=line.status, polynomial=polynomial)
    best = line.minimum
    x_K, loss_K = redrawn
    return IsoflopOptimum(
        flops=line.flops,
        runs=runs,
        status="ok",
        params=_log_interval(best, x_K, level),
        tokens=_log_interval(float(line.tokens_at(np.array(best))), line.tokens_at(x_K), level),
        loss=interval_of(c0 - c1 * c1 / (4 * c2), loss_K, level),
        polynomial=polynomial,
    )


def _refusal(lines: list[_Line]) -> str | None:
    usable = [line for line in lines if line.status == "ok"]
    if len(usable) >= 2:
        return None
    if not any(len(line.loss) >= _FEWEST_RUNS for line in lines):
        return (
            f"no compute budget has {_FEWEST_RUNS} runs of different sizes: train at least {_FEWEST_RUNS}, better 5, "
            "sizes at each of two or more budgets"
        )
    cures = []
    for line in lines:
        if line.status == "edge":
            low, high = math.exp(line.ln_params[0]), math.exp(line.ln_params[-1])
            below = int(np.argmin(line.loss)) < len(line.loss) / 2
            where = f"below {low:.3g}" if below else f"above {high:.3g}"
            cures.append(f"at {line.flops:.3g} FLOPs the minimum lies at the edge (add sizes {where})")
        elif line.status == "curvature":
            cures.append(f"at {line.flops:.3g} FLOPs loss does not curve upwards (add replicates or other sizes)")
        elif line.status == "too few":
            cures.append(
                f"at {line.flops:.3g} FLOPs there are {len(line.loss)} runs (make them {_FEWEST_RUNS} or more)"
            )
    shown = "; ".join(cures[:3]) + (f"; and {len(cures) - 3} budgets more" if len(cures) > 3 else "")
    return f"{len(usable)} budgets have a minimum and an exponent needs two: {shown or 'add a second budget'}"


def fit_isoflop(
    table: Table, *, bootstrap: int = 1000, level: float = 0.9, seed: int = 0
) -> tuple[IsoflopFit, tuple[Diagnostic, ...]]:
    """The optimum of each budget's line and the power laws of N* and D* in compute, with intervals at ``level``.

    A budget needs four runs of different sizes; its minimum counts if runs with higher losses lie on both sides. With
    fewer than two such budgets the fit is "refused" with the reason and the cure.
    """
    levels = _budgets(table)
    rows = [np.flatnonzero(levels == value) for value in np.unique(levels)]
    lines = [_line(table.flops[row], table.params[row], table.tokens[row], table.loss[row]) for row in rows]
    lines.sort(key=lambda line: line.flops)
    refusal = _refusal(lines)
    noise, spare = _pooled_noise(lines)
    rng = np.random.default_rng([seed, 2])
    # The noise's own uncertainty, shared by all budgets: Student's t with few runs to spare.
    scale_K = np.sqrt(spare / rng.chisquare(spare, size=max(bootstrap, 200)))
    redrawn = {i: _redraw(line, noise, scale_K, rng) for i, line in enumerate(lines) if line.status == "ok"}
    optima = tuple(
        _optimum(line, (redrawn[i][0][:bootstrap], redrawn[i][1][:bootstrap]) if i in redrawn else None, level)
        for i, line in enumerate(lines)
    )
    if refusal is not None:
        refused = IsoflopFit(status="refused", reason=refusal, optima=optima)
        return refused, (Diagnostic(severity="refusal", code="isoflop", message=refusal),)
    used = [lines[i] for i in redrawn]
    ln_flops_M = np.log([line.flops for line in used])
    x_KM = np.column_stack([x_K for x_K, _ in redrawn.values()])
    spread_M = np.subtract(*np.quantile(x_KM, (0.84, 0.16), axis=0)) / 2
    weight_M = 1 / np.maximum(spread_M, 1e-3) ** 2
    best_M = np.array([line.minimum for line in used])
    tokens_M = np.array([float(line.tokens_at(np.array(line.minimum))) for line in used])
    y_KM = np.column_stack([line.tokens_at(x_KM[:, i]) for i, line in enumerate(used)])
    inflation = _scatter_beyond_noise(ln_flops_M, best_M, weight_M)
    ln_k, a = _power_law(ln_flops_M, best_M, weight_M)
    ln_j, b = _power_law(ln_flops_M, tokens_M, weight_M)
    ln_k_K, a_K = _power_law(ln_flops_M, best_M + inflation * (x_KM - best_M), weight_M)
    ln_j_K, b_K = _power_law(ln_flops_M, tokens_M + inflation * (y_KM - tokens_M), weight_M)
    if not bootstrap:
        ln_k_K, a_K, ln_j_K, b_K = (np.empty(0) for _ in range(4))
    fit = IsoflopFit(
        status="ok",
        n_exponent=interval_of(float(a), a_K, level),
        d_exponent=interval_of(float(b), b_K, level),
        n_coefficient=_log_interval(float(ln_k), ln_k_K, level),
        d_coefficient=_log_interval(float(ln_j), ln_j_K, level),
        optima=optima,
        draws=tuple((row[0], row[1]) for row in stored_draws(np.column_stack((ln_k_K, a_K)))),
    )
    return fit, _diagnostics(lines, len(used))


def _scatter_beyond_noise(ln_flops_M: FloatArray, best_M: FloatArray, weight_M: FloatArray) -> float:
    """Factor by which optima scatter around their line beyond their own noise (Birge 1932); 1 with under four
    optima."""
    if len(best_M) < 4:
        return 1.0
    ln_k, a = _power_law(ln_flops_M, best_M, weight_M)
    chi_square = float((weight_M * (best_M - ln_k - a * ln_flops_M) ** 2).sum())
    return max(1.0, math.sqrt(chi_square / (len(best_M) - 2)))


def _diagnostics(lines: list[_Line], used: int) -> tuple[Diagnostic, ...]:
    unused = [line for line in lines if line.status not in ("ok", "too few")]
    notes = []
    if unused:
        named = ", ".join(f"{line.flops:.3g} ({line.status})" for line in unused)
        message = f"budgets without a usable minimum, left out of the exponents: {named}"
        notes.append(Diagnostic(severity="warning", code="isoflop-rejected", message=message))
    if used == 2:
        message = "two optima give an exponent but can't show whether they lie on a line: add a third budget"
        notes.append(Diagnostic(severity="warning", code="isoflop-two", message=message))
    return tuple(notes)
