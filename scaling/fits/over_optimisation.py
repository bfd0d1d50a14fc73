"""Over-optimisation: gold and proxy reward along the divergence, where gold peaks, and how the gap to the proxy opens.

Both scores are fitted by the method's law (``scaling.laws.over_optimisation``), by least squares. Intervals come from
what each seed, left out, moves (Student's t over seeds); with one seed they hold the scatter of its points alone.

Shapes: n measurements, K draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from scaling import laws
from scaling.errors import UserError
from scaling.fit import Diagnostic, LawFit
from scaling.fits.bootstrap import interval_of
from scaling.fits.curve import fit_law
from scaling.laws.law import FloatArray
from scaling.laws.over_optimisation import OVER_OPTIMISATION_BEST_OF_N, OVER_OPTIMISATION_RL, OverOptimisation
from scaling.record import Interval, Record

__all__ = [
    "CoefficientScaling",
    "Derived",
    "OverOptimisationFit",
    "fit_coefficient_scaling",
    "fit_over_optimisation",
    "law_of_method",
]

_FEWEST_DISTANCES = 4
_SMALLEST_RANGE = 2.0
"""The largest √KL over the smallest above zero."""
_START = 1e-12
"""The initial policy's divergence as the law is given it, nats."""
_OTHER_FORM_BETTER = 1.25
"""Residual sum of squares over the other form's from which on it is told."""
_UNLIKE_ZERO = 1e-6
_BEST_OF_N = ("best-of-n", "best_of_n", "bon")


class Derived(Record):
    """A quantity that follows from the law, or why the measurements do not show it."""

    status: Literal["ok", "refused"]
    reason: str | None = None
    value: Interval | None = None


class OverOptimisationFit(Record):
    """One method's curve; every interval at ``level``."""

    schema_version: int = 1
    law: str
    status: Literal["ok", "refused"]
    reason: str | None = None
    rows: int
    seeds: int | None = None
    """None: no seeds were given."""
    kl_nats_range: tuple[float, float]
    gold: LawFit | None = None
    proxy: LawFit | None = None
    gap: LawFit | None = None
    """The same law of proxy less gold: of use where both are on one scale."""
    peak_sqrt_kl: Derived
    peak_kl_nats: Derived
    peak_gold: Derived
    gain_at_peak: Derived
    """Gold at the peak less gold at the start."""
    return_kl_nats: Derived
    """Where gold is the initial policy's again."""
    gap_at_peak: Derived
    """How much more the proxy has risen than gold, where gold is highest."""
    gap_at_end: Derived
    """The same at the largest KL measured."""
    level: float
    diagnostics: tuple[Diagnostic, ...] = ()

    def answer(self) -> dict[str, Any]:
        """What ``scaling fit --json`` prints: everything but the draws, as JSON values; never NaN."""
        draws = {name: {"draws"} for name in ("gold", "proxy", "gap") if getattr(self, name) is not None}
        answer: dict[str, Any] = json.loads(self.model_dump_json(exclude=draws))
        return answer

    def summary(self) -> str:
        """The fit as a page of text."""
        low, high = self.kl_nats_range
        seeds = "" if self.seeds is None else f", {self.seeds} seed{'s' * (self.seeds != 1)}"
        lines = [f"{self.rows} measurements{seeds}, KL {low:.3g} to {high:.3g} nats", ""]
        if self.status == "refused":
            return "\n".join([*lines, f"{self.law}  refused: {self.reason}"])
        lines.append(laws.get(self.law).formula)
        for name, fit in (("gold", self.gold), ("proxy", self.proxy)):
            if fit is not None:
                constants = " · ".join(f"{each} {_told(value)}" for each, value in fit.parameters.items())
                lines.append(f"{name:<15}{constants}")
        lines.append("")
        for told, name in (
            ("peak at", "peak_kl_nats"), ("  √KL", "peak_sqrt_kl"), ("  gold", "peak_gold"),
            ("  gain", "gain_at_peak"), ("  proxy − gold", "gap_at_peak"), ("back at start", "return_kl_nats"),
            ("gap at the end", "gap_at_end"),
        ):  # fmt: skip
            derived: Derived = getattr(self, name)
            unit = " nats" if name.endswith("kl_nats") else ""
            if derived.value is not None:
                lines.append(f"{told:<15}{_told(derived.value)}{unit}")
            elif not told.startswith("  ") and derived.reason:
                lines.append(f"{told:<15}refused: {derived.reason}")
        lines.append(f"intervals at {self.level:.0%}")
        marks = {"note": "·", "warning": "!", "refusal": "!"}
        return "\n".join([*lines, *(f"{marks[note.severity]} {note.message}" for note in self.diagnostics)])


def law_of_method(method: str) -> OverOptimisation:
    """The law of a method by its name: best-of-n's for ``best-of-n``, for any other that of reinforcement learning."""
    return OVER_OPTIMISATION_BEST_OF_N if method in _BEST_OF_N else OVER_OPTIMISATION_RL


def fit_over_optimisation(
    data: pd.DataFrame | Mapping[str, ArrayLike],
    law: str | OverOptimisation,
    *,
    columns: Mapping[str, str] | None = None,
    level: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> OverOptimisationFit:
    """Fit ``law`` (or the law of that name) to columns ``kl_nats``, ``gold`` and, where there are any, ``proxy`` and
    ``seed``; ``columns`` says what they are called in ``data``.

    A row of zero KL is the initial policy. ``proxy − gold`` is told as it stands: put both on one scale beforehand (Gao
    et al. centre both on the initial policy, give gold unit variance and calibrate the proxy to gold's labels). Raises
    :class:`UserError` for a column or value that is wrong; refuses, with the reason, what the measurements can't show.
    """
    law = _law(law)
    points = _points(data, columns or {})
    reason = _shortage(points)
    seeds = None if points.seed is None else len(np.unique(points.seed))
    frame = {
        "law": law.name, "rows": len(points.kl), "seeds": seeds, "level": level,
        "kl_nats_range": (float(points.kl.min()), float(points.kl.max())),
    }  # fmt: skip
    if reason is not None:
        refused = Derived(status="refused", reason=reason)
        return OverOptimisationFit(**frame, status="refused", reason=reason, **dict.fromkeys(_DERIVED, refused))
    options = _Options(law, points, level, bootstrap, seed, seeds)
    gold = options.fit(points.gold, "gold")
    proxy = gap = None
    if points.proxy is not None:
        proxy, gap = options.fit(points.proxy, "proxy"), options.fit(points.proxy - points.gold, "gap")
    return OverOptimisationFit(
        **frame,
        status="ok",
        gold=gold,
        proxy=proxy,
        gap=gap,
        **_derived(law, points, gold, gap, level),
        diagnostics=_diagnostics(law, points, gold, seeds, options),
    )


_DERIVED = (
    "peak_sqrt_kl", "peak_kl_nats", "peak_gold", "gain_at_peak", "return_kl_nats", "gap_at_peak", "gap_at_end",
)  # fmt: skip


@dataclass(frozen=True)
class _Points:
    """(n,) each; the initial policy's KL is ``_START``."""

    kl: FloatArray
    gold: FloatArray
    proxy: FloatArray | None
    seed: np.ndarray | None


@dataclass(frozen=True)
class _Options:
    law: OverOptimisation
    points: _Points
    level: float
    bootstrap: int
    seed: int
    seeds: int | None

    def fit(
        self, score_n: FloatArray, name: str, law: OverOptimisation | None = None, draws: int | None = None
    ) -> LawFit:
        many = self.seeds is not None and self.seeds > 1
        return fit_law(
            law or self.law,
            {"kl_nats": np.maximum(self.points.kl, _START), name: score_n},
            value=name,
            huber_delta=math.inf,
            bootstrap=self.bootstrap if draws is None else draws,
            resample="jackknife" if many else "residuals",
            clusters=self.points.seed if many else None,
            level=self.level,
            seed=self.seed,
        )


def _law(law: str | OverOptimisation) -> OverOptimisation:
    found = laws.get(law) if isinstance(law, str) else law
    if not isinstance(found, OverOptimisation):
        raise UserError(
            f"law {found.name!r} is not of over-optimisation: choose {OVER_OPTIMISATION_BEST_OF_N.name} or "
            f"{OVER_OPTIMISATION_RL.name}"
        )
    return found


def _points(data: pd.DataFrame | Mapping[str, ArrayLike], columns: Mapping[str, str]) -> _Points:
    known = ("kl_nats", "gold", "proxy", "seed")
    for ours in columns:
        if ours not in known:
            raise UserError(f"columns has {ours!r}: an over-optimisation curve has {', '.join(known)}")
    numbers: dict[str, FloatArray] = {}
    for ours in known[:3]:
        theirs = columns.get(ours, ours)
        if theirs not in data:
            if ours == "proxy" and ours not in columns:
                continue
            there = ", ".join(map(str, data)) or "none"
            raise UserError(
                f"data has no column {theirs!r} (the columns are {there}; say which is {ours} with columns)"
            )
        try:
            numbers[ours] = np.asarray(data[theirs], dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError(f"column {theirs!r} holds something that is not a number") from None
        bad = ~np.isfinite(numbers[ours]) | ((numbers[ours] < 0) if ours == "kl_nats" else False)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            wanted = "zero or more (estimate it over more answers, or by an estimator that can't be negative)"
            wanted = wanted if ours == "kl_nats" else "a finite number"
            raise UserError(f"row {row + 1}: {theirs} is {numbers[ours][row]:g}; it must be {wanted}")
    theirs = columns.get("seed", "seed")
    if theirs not in data and "seed" in columns:
        raise UserError(f"data has no column {theirs!r}, which columns calls the seed")
    labels = np.asarray(data[theirs]).astype(str) if theirs in data else None
    return _Points(numbers["kl_nats"], numbers["gold"], numbers.get("proxy"), labels)


def _shortage(points: _Points) -> str | None:
    """Why no law of three constants can be sought in these measurements."""
    distances = np.unique(np.sqrt(points.kl))
    away = distances[distances > _UNLIKE_ZERO]
    if len(distances) < _FEWEST_DISTANCES:
        return (
            f"{len(distances)} distinct divergences can't carry the law's three constants; measure at "
            f"{_FEWEST_DISTANCES} or more, 8 are better"
        )
    if away.max() < _SMALLEST_RANGE * away.min():
        return (
            f"KL spans only {away.min() ** 2:.3g} to {away.max() ** 2:.3g} nats, too little to see a bend; √KL must "
            f"span a factor of {_SMALLEST_RANGE:g} or more"
        )
    if np.ptp(points.gold) == 0:
        return f"gold is {points.gold[0]:g} in every row: nothing can be fitted to it"
    return None


def _derived(
    law: OverOptimisation, points: _Points, gold: LawFit, gap: LawFit | None, level: float
) -> dict[str, Derived]:
    theta = np.array([gold.parameters[name].estimate for name in law.NAMES])
    draws_KP = np.array(gold.draws).reshape(-1, len(theta))
    peak, peak_K = float(law.peak(theta)), law.peak(draws_KP)
    farthest = math.sqrt(points.kl.max())
    no_proxy = "no proxy scores were given"
    gap_at_end = _difference(gap, farthest**2, no_proxy)
    reason = _no_peak(law, points, theta, peak)
    if reason is not None:
        refused = Derived(status="refused", reason=reason)
        return dict.fromkeys(_DERIVED, refused) | {"gap_at_end": gap_at_end}
    start_K, gold_K = draws_KP[:, 0], _at(law, draws_KP, peak_K)
    top = float(law.predict(theta, peak**2))
    back = float(law.returns(theta))
    told = {
        "peak_sqrt_kl": _interval(peak, peak_K, level),
        "peak_kl_nats": _interval(peak**2, peak_K**2, level),
        "peak_gold": _interval(top, gold_K, level),
        "gain_at_peak": _interval(top - theta[0], gold_K - start_K, level),
        "gap_at_peak": _difference(gap, peak**2, no_proxy),
        "gap_at_end": gap_at_end,
    }
    if back > farthest:
        told["return_kl_nats"] = Derived(
            status="refused",
            reason=f"gold was still above its start at the largest KL measured, {farthest**2:.3g} nats; by the law it "
            f"returns at {back**2:.3g}",
        )
    else:
        told["return_kl_nats"] = _interval(back**2, law.returns(draws_KP) ** 2, level)
    return told


def _no_peak(law: OverOptimisation, points: _Points, theta: FloatArray, peak: float) -> str | None:
    largest = float(points.kl.max())
    nearest = float(points.kl[points.kl > _UNLIKE_ZERO**2].min())
    if not math.isfinite(peak):
        return f"gold does not bend down up to {largest:.3g} nats (beta {theta[2]:.3g}): optimise further to see a peak"
    if peak**2 > largest:
        return (
            f"gold was still rising at the largest KL measured, {largest:.3g} nats; by the law it peaks at "
            f"{peak**2:.3g}: measure beyond that"
        )
    if peak**2 < nearest:
        return (
            f"gold falls from the first KL measured, {nearest:.3g} nats (alpha {theta[1]:.3g}, beta {theta[2]:.3g}): "
            "measure nearer to the start, or the proxy does not serve gold at all"
        )
    return None


def _at(law: OverOptimisation, draws_KP: FloatArray, d_K: FloatArray) -> FloatArray:
    """Each draw's own law at its own √KL, (K,); infinite where that is."""
    start_K, alpha_K, beta_K = draws_KP.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value_K = start_K + alpha_K * d_K - beta_K * law.bend(np.log(d_K))
    value_K = np.where(d_K == 0, start_K, value_K)
    return np.where(np.isfinite(d_K) & np.isfinite(value_K), value_K, np.inf)


def _interval(estimate: float, draws_K: FloatArray, level: float) -> Derived:
    """Quantiles among the draws themselves; a side that is infinite is open."""
    if not len(draws_K):
        return Derived(status="ok", value=Interval(estimate=estimate, low=None, high=None))
    low, high = np.quantile(draws_K, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Derived(
        status="ok",
        value=Interval(
            estimate=estimate,
            low=min(float(low), estimate) if math.isfinite(low) else None,
            high=max(float(high), estimate) if math.isfinite(high) else None,
        ),
    )


def _difference(gap: LawFit | None, kl: float, otherwise: str) -> Derived:
    """How far the gap has opened since the start, at ``kl`` nats."""
    if gap is None:
        return Derived(status="refused", reason=otherwise)
    law = _law(gap.law)
    theta_P = np.array([gap.parameters[name].estimate for name in law.NAMES])
    draws_KP = np.array(gap.draws).reshape(-1, len(theta_P))
    opened = float(law.predict(theta_P, kl)) - theta_P[0]
    return _interval(opened, law.predict(draws_KP, kl) - draws_KP[:, 0], gap.level)


def _diagnostics(
    law: OverOptimisation, points: _Points, gold: LawFit, seeds: int | None, options: _Options
) -> tuple[Diagnostic, ...]:
    notes = []
    if seeds is None or seeds == 1:
        told = "no seeds were given" if seeds is None else "one seed"
        message = (
            f"{told}: intervals hold the scatter of these points, not what another seed would do; run three or more"
        )
        notes.append(Diagnostic(severity="warning", code="one-seed", message=message))
    elif seeds == 2:
        message = "two seeds: intervals have one degree of freedom and are very wide; three or more are better"
        notes.append(Diagnostic(severity="warning", code="two-seeds", message=message))
    other = OVER_OPTIMISATION_RL if isinstance(law, type(OVER_OPTIMISATION_BEST_OF_N)) else OVER_OPTIMISATION_BEST_OF_N
    theirs = options.fit(points.gold, "gold", law=other, draws=0).objective
    if gold.objective > _OTHER_FORM_BETTER * theirs:
        message = (
            f"{other.name} leaves {theirs / gold.objective:.0%} of this law's squared residuals: its form fits better"
        )
        notes.append(Diagnostic(severity="note", code="other-form", message=message))
    return (*notes, *gold.diagnostics)


class CoefficientScaling(Record):
    """α and β as lines in the logarithm of a size: coefficient = at_middle + slope·ln(size/middle)."""

    middle: float
    """The geometric mean of the sizes."""
    sizes: tuple[float, ...]
    at_middle: dict[str, Interval]
    slope: dict[str, Interval]
    """Change for a size e times larger."""
    level: float

    def predict(self, size: float) -> dict[str, float]:
        """α and β at ``size``, as the lines have them."""
        if not size > 0:
            raise UserError(f"size is {size}: it must be above zero, in the unit of those that were fitted")
        along = math.log(size / self.middle)
        return {name: self.at_middle[name].estimate + along * self.slope[name].estimate for name in self.slope}


def fit_coefficient_scaling(fits: Mapping[float, OverOptimisationFit]) -> CoefficientScaling:
    """α and β against ln(size) of the reward model (its parameters, or the pairs it was trained on), from a fit each.

    Gao et al. (section 3.2) find both about linear in the logarithm of the reward model's parameters, and α of
    reinforcement learning about constant. Least squares over sizes; of the intervals that the fits' own draws and the
    scatter of the sizes around the line give, the wider is told. Raises :class:`UserError` for fewer than three sizes
    or fits that were refused or are of different laws.
    """
    if len(fits) < 3:
        raise UserError(f"{len(fits)} sizes of reward model: a line in ln(size) and its error take three or more")
    for size, fit in fits.items():
        if fit.gold is None:
            raise UserError(f"the fit at size {size:g} was refused ({fit.reason}): leave it out")
        if not size > 0:
            raise UserError(f"size {size:g} is not above zero")
    if len(names := {fit.law for fit in fits.values()}) > 1:
        raise UserError(f"the fits are of {' and '.join(sorted(names))}: compare sizes within one law")
    sizes = sorted(fits)
    golds = [gold for size in sizes if (gold := fits[size].gold) is not None]
    ln_m = np.log(sizes)
    middle = float(ln_m.mean())
    design_m2 = np.column_stack((np.ones(len(sizes)), ln_m - middle))
    solve_2m = np.linalg.pinv(design_m2)
    level, draws = golds[0].level, min(len(gold.draws) for gold in golds)
    at_middle: dict[str, Interval] = {}
    slope: dict[str, Interval] = {}
    rng = np.random.default_rng([0, 5])
    for name in ("alpha", "beta"):
        place = list(golds[0].parameters).index(name)
        value_m = np.array([gold.parameters[name].estimate for gold in golds])
        line = solve_2m @ value_m
        spare = len(sizes) - 2
        error = math.sqrt(float(((value_m - design_m2 @ line) ** 2).sum()) / spare)
        half = float(stdtrit(spare, 0.5 + level / 2)) * error * np.sqrt((solve_2m**2).sum(axis=1))
        # Shuffled, since fits of one seed of random numbers have their draws in step.
        drawn_mK = np.array([rng.permutation(np.array(gold.draws)[:draws, place]) for gold in golds] if draws else [])
        lines_2K = solve_2m @ drawn_mK if draws else np.empty((2, 0))
        for told, k in ((at_middle, 0), (slope, 1)):
            own = interval_of(float(line[k]), lines_2K[k], level)
            low, high = (line[k] if end is None else end for end in (own.low, own.high))
            told[name] = Interval(
                estimate=float(line[k]),
                low=float(min(low, line[k] - half[k])),
                high=float(max(high, line[k] + half[k])),
            )
    return CoefficientScaling(
        middle=math.exp(middle), sizes=tuple(sizes), at_middle=at_middle, slope=slope, level=level
    )


def _told(interval: Interval) -> str:
    if interval.low is None and interval.high is None:
        return f"{interval.estimate:.4g}"
    low, high = ("open" if end is None else f"{end:.4g}" for end in (interval.low, interval.high))
    return f"{interval.estimate:.4g} [{low}, {high}]"
