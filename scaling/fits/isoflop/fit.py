"""Approach 2 of Hoffmann et al. (2203.15556): the best size on each iso-FLOP line, then N* and D* against compute.

Each budget's line of loss against ln N has its minimum found by an interpolator; an optimum at an edge or with the
wrong curvature is rejected. ln N* and ln D* then follow lines in ln C, each optimum weighted by the inverse of its
variance (Porian et al., 2406.19146). Intervals redraw the runs' noise, pooled over budgets.

Shapes: K draws, M usable budgets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from scaling.errors import UserError
from scaling.fit import Diagnostic, IsoflopFit, IsoflopOptimum
from scaling.fits.bootstrap import interval_of, stored_draws
from scaling.fits.compute_bins import budget_of_runs
from scaling.fits.cures import described
from scaling.fits.isoflop.akima import Akima
from scaling.fits.isoflop.cubic import Cubic
from scaling.fits.isoflop.cure import completing
from scaling.fits.isoflop.line import Interpolator, Line, Minimum, Status
from scaling.fits.isoflop.parabola import LocalParabola
from scaling.fits.isoflop.polynomial import PolynomialInterpolator
from scaling.fits.power_law import log_interval, power_law, scatter_beyond_noise
from scaling.laws.law import FloatArray
from scaling.table import Table

__all__ = ["INTERPOLATORS", "InterpolatorName", "fit_isoflop"]

InterpolatorName = Literal["parabola", "cubic", "akima"]
INTERPOLATORS: Mapping[InterpolatorName, Interpolator] = MappingProxyType(
    {"parabola": LocalParabola(), "cubic": Cubic(), "akima": Akima()}
)
_FEWEST_DRAWS = 200
"""Redrawn even where no interval is asked for: the optima are weighted by their spread."""
_SKEW_SD = 0.15
"""SD of the lines' skew, the third derivative of loss in ln N over the second at the minimum, which a parabola leaves
out. Under the Chinchilla law it is β − α: −0.06 to 0.06 in published ones, an SD of 0.16 with both anywhere from 0.2 to
0.6."""


@dataclass(frozen=True)
class _Budget:
    """A line, whether it has a minimum, and where."""

    line: Line
    status: Status
    minimum: Minimum | None = None
    polynomial: tuple[float, ...] | None = None


def _pooled_noise(lines: list[Line], interpolator: Interpolator) -> tuple[float, int]:
    """SD of the noise in loss, in nats, and its degrees of freedom: from the residuals of all lines.

    What interpolates has no residuals; there the local parabola's are taken.
    """
    by = interpolator if isinstance(interpolator, PolynomialInterpolator) else LocalParabola()
    residuals = [by.residuals(line) for line in lines if line.sizes >= by.FEWEST]
    spare = max(1, sum(max(0, len(each) - by.DEGREE - 1) for each in residuals))
    return math.sqrt(sum(float(each @ each) for each in residuals) / spare), spare


def _located(lines: list[Line], by: Interpolator, noise: float | None, draws: int, seed: int) -> list[_Budget]:
    """Each line with its minimum, if it has one, under ``draws`` redraws of the losses."""
    rng = np.random.default_rng([seed, 2])
    scale_K = np.ones(draws)
    if noise is None:
        noise, spare = _pooled_noise(lines, by)
        # The noise's own uncertainty, shared by all budgets: Student's t with few runs to spare.
        scale_K = np.sqrt(spare / rng.chisquare(spare, size=draws))
    skew_K = _SKEW_SD * np.random.default_rng([seed, 6]).standard_normal(draws)
    budgets = []
    for line in lines:
        budget = _Budget(line, by.status(line))
        if budget.status != "too few":
            budget = replace(budget, polynomial=by.polynomial(line))
        if budget.status == "ok":
            shocks_KN = rng.standard_normal((draws, len(by.window(line)))) * (noise * scale_K[:, None])
            minimum = by.minimum(line, shocks_KN, skew_K)
            budget = replace(budget, minimum=minimum, status="edge" if minimum is None else "ok")
        budgets.append(budget)
    return budgets


def _optimum(budget: _Budget, draws: int, level: float) -> IsoflopOptimum:
    """The record of a budget, with intervals from the first ``draws`` of its minimum's draws."""
    line, minimum = budget.line, budget.minimum
    found = IsoflopOptimum(flops=line.flops, runs=len(line.loss), status=budget.status, polynomial=budget.polynomial)
    if minimum is None:
        return found
    x_K = minimum.draws_K[:draws]
    return found.model_copy(
        update={
            "params": log_interval(minimum.ln_params, x_K, level),
            "tokens": log_interval(float(line.tokens_at(np.array(minimum.ln_params))), line.tokens_at(x_K), level),
            "loss": interval_of(minimum.loss, minimum.loss_K[:draws], level),
        }
    )


def _refusal(budgets: list[_Budget], fewest: int) -> str | None:
    usable = sum(budget.status == "ok" for budget in budgets)
    if usable >= 2:
        return None
    if all(budget.status == "too few" for budget in budgets):
        return (
            f"no compute budget has {fewest} runs of different sizes: train at least {fewest}, better "
            f"{max(5, fewest + 1)}, sizes at each of two or more budgets"
        )
    cures = []
    for budget in budgets:
        line = budget.line
        if budget.status == "edge":
            low, high = math.exp(line.ln_params[0]), math.exp(line.ln_params[-1])
            where = f"below {low:.3g}" if line.lowest < len(line.loss) / 2 else f"above {high:.3g}"
            cures.append(f"at {line.flops:.3g} FLOPs the minimum lies at the edge (add sizes {where})")
        elif budget.status == "curvature":
            cures.append(f"at {line.flops:.3g} FLOPs loss does not curve upwards (add replicates or other sizes)")
        elif budget.status == "too few":
            cures.append(f"at {line.flops:.3g} FLOPs there are {line.sizes} sizes (make them {fewest} or more)")
    shown = "; ".join(cures[:3]) + (f"; and {len(cures) - 3} budgets more" if len(cures) > 3 else "")
    return f"{usable} budgets have a minimum and an exponent needs two: {shown or 'add a second budget'}"


def fit_isoflop(
    table: Table,
    *,
    interpolator: InterpolatorName = "parabola",
    noise: float | None = None,
    bootstrap: int = 1000,
    level: float = 0.9,
    seed: int = 0,
) -> tuple[IsoflopFit, tuple[Diagnostic, ...]]:
    """The optimum of each budget's line and the power laws of N* and D* in compute, with intervals at ``level``.

    A budget's minimum counts if runs with higher losses lie on both sides. With fewer than two such budgets the fit is
    "refused" with the reason and the cure. ``noise`` is the SD of a run's loss in nats where it is known, from
    replicates with other seeds; else it is taken from the residuals. Raises ``UserError`` for an unknown
    ``interpolator`` or a ``noise`` that is no SD.
    """
    if interpolator not in INTERPOLATORS:
        raise UserError(f"interpolator is {interpolator!r}: choose among {', '.join(INTERPOLATORS)}")
    if noise is not None and not 0 < noise < math.inf:
        raise UserError(f"noise is {noise}: give the SD of a run's loss in nats, above zero, for example 0.01")
    by = INTERPOLATORS[interpolator]
    levels = budget_of_runs(table)
    rows = [np.flatnonzero(levels == value) for value in np.unique(levels)]
    lines = [Line.of(table.flops[row], table.params[row], table.tokens[row], table.loss[row]) for row in rows]
    lines.sort(key=lambda line: line.flops)
    budgets = _located(lines, by, noise, max(bootstrap, _FEWEST_DRAWS), seed)
    optima = tuple(_optimum(budget, bootstrap, level) for budget in budgets)
    refusal = _refusal(budgets, by.FEWEST)
    if refusal is not None:
        lines_found = [(budget.line, budget.status) for budget in budgets]
        cure = completing(lines_found, by.FEWEST, table.flops_per_param_token)
        refusal = f"{refusal}: {described(cure)} would help"
        refused = IsoflopFit(status="refused", reason=refusal, interpolator=interpolator, optima=optima)
        return refused, (Diagnostic(severity="refusal", code="isoflop", message=refusal, cure=cure),)
    (ln_k, a), (ln_k_K, a_K), (ln_j, b), (ln_j_K, b_K) = _power_laws(
        [(budget.line, budget.minimum) for budget in budgets if budget.minimum is not None], bootstrap
    )
    fit = IsoflopFit(
        status="ok",
        interpolator=interpolator,
        n_exponent=interval_of(float(a), a_K, level),
        d_exponent=interval_of(float(b), b_K, level),
        n_coefficient=log_interval(float(ln_k), ln_k_K, level),
        d_coefficient=log_interval(float(ln_j), ln_j_K, level),
        optima=optima,
        draws=tuple((row[0], row[1]) for row in stored_draws(np.column_stack((ln_k_K, a_K)))),
    )
    return fit, _diagnostics(budgets)


def _power_laws(used: list[tuple[Line, Minimum]], draws: int) -> tuple[tuple[FloatArray, FloatArray], ...]:
    """(ln k, a) of N*, the same of its first ``draws`` draws, then (ln j, b) of D* and of its draws."""
    ln_flops_M = np.log([line.flops for line, _ in used])
    weight_M = np.array([minimum.spread for _, minimum in used]) ** -2.0
    best_M = np.array([minimum.ln_params for _, minimum in used])
    inflation = scatter_beyond_noise(ln_flops_M, best_M, weight_M)
    # Scatter beyond the noise widens what the noise does to each optimum, not what the lines have in common.
    draws_KM = np.column_stack([m.draws_K + (inflation - 1) * (m.ln_params_K - m.ln_params) for _, m in used])[:draws]
    tokens_M = np.array([float(line.tokens_at(np.array(minimum.ln_params))) for line, minimum in used])
    tokens_KM = np.column_stack([line.tokens_at(draws_KM[:, i]) for i, (line, _) in enumerate(used)])
    return tuple(power_law(ln_flops_M, values, weight_M) for values in (best_M, draws_KM, tokens_M, tokens_KM))


def _diagnostics(budgets: list[_Budget]) -> tuple[Diagnostic, ...]:
    notes = []
    unused = [budget for budget in budgets if budget.status in ("edge", "curvature")]
    if unused:
        named = ", ".join(f"{budget.line.flops:.3g} ({budget.status})" for budget in unused)
        message = f"budgets without a usable minimum, left out of the exponents: {named}"
        notes.append(Diagnostic(severity="warning", code="isoflop-rejected", message=message))
    if sum(budget.status == "ok" for budget in budgets) == 2:
        message = "two optima give an exponent but can't show whether they lie on a line: add a third budget"
        notes.append(Diagnostic(severity="warning", code="isoflop-two", message=message))
    return tuple(notes)
