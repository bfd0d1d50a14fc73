"""Learning rates: the valley of loss at one size, a power law through several, and others' laws inside their range.

The loss over the logarithm of the learning rate is near its minimum a parabola (Li et al. 2503.04715, Bjorck et al.
2409.19913); its bottom is the best rate of that size. Over sizes the rate falls as a power of N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from scaling.errors import UserError
from scaling.fits.tuned_law import TunedLaw
from scaling.laws.deepseek import DEEPSEEK, DEEPSEEK_BATCH
from scaling.laws.hyperparameter import HyperparameterLaw
from scaling.laws.olmo_ladder import OLMO_LADDER, OLMO_LADDER_BATCH
from scaling.laws.step_law import STEP_LAW, STEP_LAW_BATCH
from scaling.quantity import format_count
from scaling.record import Interval, Record
from scaling.run_spec import Parametrisation

__all__ = [
    "PRIOR_EXPONENT",
    "PRIOR_EXPONENT_SD",
    "PUBLISHED_BATCHES",
    "PUBLISHED_RATES",
    "LearningRateLaw",
    "PublishedRate",
    "Valley",
    "fit_valley",
    "fixed_rate",
    "law_from_probe",
    "published_batch",
    "published_rate",
    "published_rates",
    "transferred_rate",
    "tuned_rate",
]

PUBLISHED_RATES: dict[str, HyperparameterLaw] = {law.name: law for law in (STEP_LAW, DEEPSEEK, OLMO_LADDER)}
"""Laws of the peak learning rate, each refused outside the range that it was fitted on."""
PUBLISHED_BATCHES: dict[str, HyperparameterLaw] = dict(
    zip(PUBLISHED_RATES, (STEP_LAW_BATCH, DEEPSEEK_BATCH, OLMO_LADDER_BATCH), strict=True)
)
"""Their laws of the batch, in tokens."""
PRIOR_EXPONENT = 1 / 3
"""lr ~ N^(-1/3): the OLMo ladder's (2412.04403), and what muP's 1/width says of models whose width grows as N^(1/3)."""
PRIOR_EXPONENT_SD = 0.15
"""How far apart published exponents lie: 0 to 0.71, most of them between a quarter and a half."""
_TRANSFERRED = {
    "mup": Interval(estimate=0.0, low=-0.02, high=0.12),
    "completep": Interval(estimate=0.0, low=-0.05, high=0.13),
}
"""How the best rate moves that a parametrisation carries. It is used as it is; measured over factors of 8, it went as
width^-0.10 (90%: -0.23 to 0.03), N^-0.12 to N^0.02 at a fixed depth, and under CompleteP as layers^-0.02 (-0.33 to
0.30) beside, along the size dial N^-0.13 to N^0.05 together (benchmarks/README.md)."""
_LEVEL_QUANTILE = 1.6448536269514722
"""Normal quantile of a 90% interval."""
_LEAST_LN_RATE_SD = 0.15
"""A probed optimum is never trusted to better than this in ln lr: the grid is a factor of two apart."""


class Valley(Record):
    """The loss over the learning rate at one size. ``rate`` is the bottom, or the best rate tried if it has none."""

    status: Literal["ok", "edge", "curvature"]
    reason: str | None
    rate: Interval
    ln_rate_sd: float
    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    polynomial: tuple[float, float, float] | None
    """loss = p0 + p1 x + p2 x^2 with x = ln(rate), through the points used."""

    def costs(self, factor: float) -> float | None:
        """Share of the loss that ``factor`` times the best rate costs, near the bottom; None without a valley."""
        if self.polynomial is None:
            return None
        constant, slope, square = self.polynomial
        return square * math.log(factor) ** 2 / (constant - slope**2 / (4 * square))


class LearningRateLaw(Record):
    """lr = rate_at * (N / params_at)^(-exponent), N total parameters; intervals of 90%.

    ``tuned`` is the law of N and D behind it, where hyperparameters were tuned; the rate is then that at the length
    asked for. ``valleys`` are what a probe measured, with the total parameters of each.
    """

    rate_at: Interval
    params_at: float
    exponent: Interval
    basis: str
    tuned: TunedLaw | None = None
    valleys: tuple[tuple[float, Valley], ...] = ()

    def rate(self, params: float, tokens: float | None = None) -> float:
        """The peak learning rate for ``params`` total parameters, trained on ``tokens``."""
        if self.tuned and tokens:
            return self.tuned.at(params, tokens)["learning_rate"]
        return float(self.rate_at.estimate * (params / self.params_at) ** -self.exponent.estimate)

    def rate_interval(self, params: float, tokens: float | None = None) -> Interval:
        """The rate with its interval, which widens with the distance from the probed sizes."""
        if self.tuned and tokens:
            return self.tuned.predict(params, tokens)["learning_rate"]
        distance = math.log(params / self.params_at)
        rate = self.rate(params)

        def bound(rate_at: float | None, exponent: float | None, side: int) -> float:
            level = math.log((rate_at or self.rate_at.estimate) / self.rate_at.estimate)
            slope = distance * (self.exponent.estimate - (self.exponent.estimate if exponent is None else exponent))
            return rate * math.exp(side * math.hypot(level, slope))

        steep, shallow = self.exponent.high, self.exponent.low
        below, above = (steep, shallow) if distance >= 0 else (shallow, steep)
        return Interval(estimate=rate, low=bound(self.rate_at.low, below, -1), high=bound(self.rate_at.high, above, +1))


def fit_valley(learning_rates: Sequence[float], losses: Sequence[float]) -> Valley:
    """The bottom of a parabola in ln lr through the best rate and its neighbours (up to two on each side).

    At least three rates, ascending. Losses far above the best (by over 10%) are past the edge of stability and are left
    out: there the valley is no parabola. Without an inner bottom the best rate tried is given, with a wide interval,
    and the reason.
    """
    if len(learning_rates) != len(losses) or len(losses) < 3:
        raise ValueError("a valley needs at least three rates with their losses")
    # A loss that is not a number is a run that diverged: worse than all others, and no part of the parabola.
    x, y = np.log(np.asarray(learning_rates, float)), np.nan_to_num(np.asarray(losses, float), nan=np.inf)
    if not (np.diff(x) > 0).all() or not np.isfinite(y).any():
        raise ValueError("a valley needs ascending rates and at least one finite loss")
    best = int(np.argmin(y))
    near = np.arange(max(0, best - 2), min(len(y), best + 3))
    near = near[y[near] <= 1.10 * y[best]]
    step = float(np.mean(np.diff(x)))

    def valley(status: Literal["ok", "edge", "curvature"], reason: str | None, at: float, sd: float) -> Valley:
        spread = math.exp(_LEVEL_QUANTILE * sd)
        rate = math.exp(at)
        return Valley(
            status=status, reason=reason, ln_rate_sd=sd, learning_rates=tuple(map(float, learning_rates)),
            rate=Interval(estimate=rate, low=rate / spread, high=rate * spread), losses=tuple(map(float, losses)),
            polynomial=(p0, p1, p2) if status == "ok" else None,
        )  # fmt: skip

    p0 = p1 = p2 = 0.0
    if best in (0, len(y) - 1):
        side = "lowest" if best == 0 else "highest"
        return valley("edge", f"the best rate is the {side} tried", float(x[best]), 2 * step)
    if len(near) < 3:
        return valley("curvature", "fewer than three rates lie near the best", float(x[best]), step)
    p2, p1, p0 = (float(p) for p in np.polyfit(x[near], y[near], 2))
    if p2 <= 0 or not x[best - 1] <= -p1 / (2 * p2) <= x[best + 1]:
        return valley("curvature", "the losses near the best rate are no valley", float(x[best]), step)
    # Beyond three points the misfit says how well the bottom is known; with three there is none: half a step stands.
    misfit = y[near] - np.polyval((p2, p1, p0), x[near])
    spare = len(near) - 3
    sd = math.sqrt(float(misfit @ misfit) / spare) / (2 * p2 * step) if spare else step / 2
    return valley("ok", None, -p1 / (2 * p2), min(max(sd, _LEAST_LN_RATE_SD), step))


def law_from_probe(valleys: Sequence[tuple[float, Valley]]) -> LearningRateLaw:
    """The power law through the valleys of some sizes, (total parameters, valley) each.

    Its exponent is the measured one shrunk to ``PRIOR_EXPONENT`` by inverse variance: two sizes a factor of four apart
    tell little by themselves, and the law is used beyond them.
    """
    if not valleys:
        raise ValueError("the law needs at least one valley")
    ln_n = np.array([math.log(params) for params, _ in valleys])
    ln_rate = np.array([math.log(valley.rate.estimate) for _, valley in valleys])
    weight = np.array([1 / valley.ln_rate_sd**2 for _, valley in valleys])
    centre = float(weight @ ln_n / weight.sum())
    level = float(weight @ ln_rate / weight.sum())
    information = float(weight @ (ln_n - centre) ** 2)
    prior = 1 / PRIOR_EXPONENT_SD**2
    moment = -float(weight @ ((ln_n - centre) * (ln_rate - level)))
    exponent = (moment + prior * PRIOR_EXPONENT) / (information + prior)
    sd = 1 / math.sqrt(information + prior)
    spread = math.exp(_LEVEL_QUANTILE / math.sqrt(float(weight.sum())))
    measured = f", measured alone {moment / information:.2f}" if information > 0 else ""
    edges = [f"{format_count(params)}: {valley.reason}" for params, valley in valleys if valley.reason]
    doubts = f" ({'; '.join(edges)})" if edges else ""
    return LearningRateLaw(
        params_at=math.exp(centre),
        rate_at=Interval(estimate=math.exp(level), low=math.exp(level) / spread, high=math.exp(level) * spread),
        exponent=Interval(estimate=exponent, low=exponent - _LEVEL_QUANTILE * sd, high=exponent + _LEVEL_QUANTILE * sd),
        basis=f"probed at {', '.join(format_count(params) for params, _ in valleys)} parameters{doubts}; "
        f"lr ~ N^-{exponent:.2f}: prior {PRIOR_EXPONENT:.2f} (OLMo ladder){measured}",
        valleys=tuple(valleys),
    )


def transferred_rate(params: float, valley: Valley, parametrisation: Parametrisation) -> LearningRateLaw:
    """The valley of one size as the law of all, under a parametrisation that transfers it."""
    doubt = f" ({valley.reason})" if valley.reason else ""
    return LearningRateLaw(
        rate_at=valley.rate,
        params_at=params,
        exponent=_TRANSFERRED[parametrisation.name],
        basis=f"probed at {format_count(params)} parameters{doubt}, carried to all sizes by {parametrisation.label}",
        valleys=((params, valley),),
    )


def tuned_rate(law: TunedLaw) -> LearningRateLaw:
    """The law that tuning found; between lengths of equal compute where none is asked for."""
    rate = next(one for one in law.hyperparameters if one.name == "learning_rate")
    slope = Interval(
        estimate=rate.tokens_exponent.estimate - rate.params_exponent.estimate,
        low=(rate.tokens_exponent.low or 0.0) - (rate.params_exponent.high or 0.0),
        high=(rate.tokens_exponent.high or 0.0) - (rate.params_exponent.low or 0.0),
    )
    trials = sum(len(cell.trials) for cell in law.cells)
    found = "; ".join(
        f"{one.name} ~ N^{one.params_exponent.estimate:.2f} D^{one.tokens_exponent.estimate:.2f}"
        if one.params_exponent.estimate or one.tokens_exponent.estimate
        else f"{one.name} {one.at.estimate:.3g}"
        for one in law.hyperparameters
    )
    return LearningRateLaw(
        rate_at=rate.at,
        params_at=law.params_at,
        exponent=slope,
        basis=f"tuned by {trials} trials at {len(law.cells)} sizes and lengths: {found}",
        tuned=law,
    )


def fixed_rate(rate: float, parametrisation: Parametrisation | None = None) -> LearningRateLaw:
    """One rate for all sizes, as given.

    Under the standard parametrisation, how it should change with size was not measured: the interval of the exponent
    spans the published ones, 0 to 2/3, and lets the rate at larger sizes fall but not rise.
    """
    if parametrisation is None or parametrisation.name == "standard":
        exponent = Interval(estimate=0.0, low=0.0, high=2 / 3)
        basis = "given as a number, the same for all sizes; how it changes with size was not measured"
    else:
        exponent = _TRANSFERRED[parametrisation.name]
        basis = f"given as a number, carried to all sizes by {parametrisation.label}"
    return LearningRateLaw(
        rate_at=Interval(estimate=rate, low=rate, high=rate), params_at=1e6, exponent=exponent, basis=basis
    )


class PublishedRate(Record):
    """A published law's peak learning rate at one size and length."""

    key: str
    name: str
    rate: float
    citation: str


def published_rate(key: str, params: float, tokens: float) -> PublishedRate:
    """The peak rate by a published law: step-law, deepseek or olmo-ladder.

    ``params`` are non-embedding parameters, as these laws count them; compute is 6 N D. Raises :class:`UserError`
    outside the range that the law was fitted on: at 28k parameters Step Law's rate costs 3.8% of loss (measured on the
    starter corpus).
    """
    law = _law(key, PUBLISHED_RATES)
    return PublishedRate(key=key, name=law.title, rate=law.at(params, tokens), citation=law.citation)


def published_rates(params: float, tokens: float) -> tuple[PublishedRate, ...]:
    """Every published law that was fitted at such a size and length; often none."""
    held = []
    for key in PUBLISHED_RATES:
        try:
            held.append(published_rate(key, params, tokens))
        except UserError:
            continue
    return tuple(held)


def published_batch(key: str, params: float, tokens: float) -> float:
    """The batch in tokens by a published law, refused like :func:`published_rate`."""
    return _law(key, PUBLISHED_BATCHES).at(params, tokens)


def _law(key: str, laws: dict[str, HyperparameterLaw]) -> HyperparameterLaw:
    if key not in laws:
        raise UserError(f"learning-rate law {key!r} is not known; choose one of: {', '.join(laws)}")
    return laws[key]
