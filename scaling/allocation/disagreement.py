"""Several laws side by side: where each would put the same compute, and what following the wrong one costs.

Following law i where law j is true means training i's N and D and getting j's loss for them. What that costs is told
twice: the compute that j's own optimum would have saved at that loss (wasted), and the compute that i's rule would need
beyond the budget to reach what j's optimum reaches with it (to make up), in FLOPs and dollars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from scaling.allocation.surface import LossSurface, bisect, check_positive
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.hardware import cluster_estimate
from scaling.laws.law import FloatArray
from scaling.published import chinchilla_constants, optimal_params, published_optima
from scaling.quantity import format_count, format_flops, format_percent, format_usd
from scaling.record import Interval, Record

__all__ = ["Disagreement", "Placement", "WrongLaw", "compare"]

_MOST_MAKE_UP = 1e4
"""A rule that needs more than so many times the budget to make up for its error is said not to."""

Rule = Callable[[FloatArray], FloatArray]


class Placement(Record):
    """Where one law puts the compute."""

    name: str
    source: str
    params: float
    tokens: float
    tokens_per_param: float


class WrongLaw(Record):
    """What following ``follows`` costs where ``true`` is true; intervals from the draws of ``true``."""

    follows: str
    true: str
    loss: Interval
    loss_excess: Interval
    """Nats above the optimum of ``true``."""
    wasted_flops: Interval
    wasted_share: Interval
    make_up_flops: Interval | None
    """None where even ten thousand times the budget does not make up for it."""
    make_up_usd: Interval | None
    """The make-up compute at the typical price; the bounds add the ranges of price and utilisation."""


class Disagreement(Record):
    """Laws side by side at ``flops``: placements, then every pair of one followed and another true."""

    flops: float
    level: float
    accelerator: str
    gpus: int
    usd: Interval
    """What ``flops`` themselves cost."""
    placements: tuple[Placement, ...]
    costs: tuple[WrongLaw, ...]
    price_source: str

    def summary(self) -> str:
        """Two tables: placements, and costs of the wrong law."""
        wide = max(len(placement.name) for placement in self.placements)
        lines = [f"{format_flops(self.flops)} ({format_usd(self.usd.estimate)} on {self.accelerator}) by each law:"]
        lines += [
            f"  {placement.name:<{wide}} {format_count(placement.params):>7} parameters on "
            f"{format_count(placement.tokens):>7} tokens ({placement.tokens_per_param:.3g} a parameter)"
            for placement in self.placements
        ]
        true = None
        for cost in self.costs:
            if cost.true != true:
                true = cost.true
                lines.append(f"if {true} is true, following")
            if cost.make_up_flops is None or cost.make_up_usd is None:
                to_make_up = "no compute makes up for it"
            else:
                to_make_up = (
                    f"to make up {format_flops(cost.make_up_flops.estimate)}, {format_usd(cost.make_up_usd.estimate)} "
                    f"[{_usd(cost.make_up_usd.low)}, {_usd(cost.make_up_usd.high)}]"
                )
            lines.append(f"  {cost.follows:<{wide}} wastes {format_percent(cost.wasted_share)} of it; {to_make_up}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Side:
    """A law as a rule (N* as a function of C), and, if it has one, as a surface of the loss."""

    name: str
    source: str
    rule: Rule
    surface: LossSurface | None


def compare(
    fits: Mapping[str, Fit],
    flops: float,
    *,
    published: bool = True,
    accelerator: str = "H100",
    gpus: int = 1024,
    mfu: float | None = None,
    price: float | None = None,
) -> Disagreement:
    """Every estimator of ``fits`` (name to fit) and, beside them, the published laws, at ``flops`` = 6·N·D.

    A fit gives a rule and a loss by its parametric law and a rule by its iso-FLOP lines; published laws give a rule,
    the Chinchillas a loss too. Losses of different laws are of different corpora and are never subtracted: each cost is
    reckoned within the law that is taken for true. Dollars are of ``gpus`` accelerators (``scaling.hardware``).

    Raises :class:`UserError` where there are not two laws to compare, or the fits do not count parameters alike;
    published laws count all parameters, and are left out beside fits that do not.
    """
    check_positive("flops", flops, "1e21")
    conventions = {fit.params_convention for fit in fits.values()}
    if len(conventions) > 1:
        raise UserError(
            f"the fits count parameters differently ({', '.join(sorted(conventions))}), so that their sizes can't be "
            "compared: fit them again with one --params-convention"
        )
    sides = [side for name, fit in fits.items() for side in _of_fit(name, fit)]
    if published and conventions <= {"total"}:
        sides += _published(flops)
    if len(sides) < 2 or all(side.surface is None for side in sides):
        raise UserError(
            f"{len(sides)} of these laws can be compared and one needs a loss: give another fit with --beside"
        )
    usd = cluster_estimate(flops, gpus, accelerator, mfu, price)
    costs = tuple(
        _cost(follows, true, true.surface, flops, usd.usd)
        for true in sides
        if true.surface is not None
        for follows in sides
        if follows.name != true.name
    )
    return Disagreement(
        flops=flops,
        level=next(iter(fits.values())).level if fits else 0.9,
        accelerator=usd.accelerator,
        gpus=gpus,
        usd=usd.usd,
        placements=tuple(_placement(side, flops) for side in sides),
        costs=costs,
        price_source=usd.source,
    )


def _of_fit(name: str, fit: Fit) -> list[_Side]:
    sides = []
    if LossSurface.refusal(fit) is None:
        surface = LossSurface.of(fit)
        estimate = LossSurface(surface.theta_KP[:1], surface.level)
        sides.append(_Side(f"{name}, law", f"{fit.observations.used} runs", _rule_of(estimate), surface))
    coefficient, exponent = fit.isoflop.n_coefficient, fit.isoflop.n_exponent
    if fit.isoflop.status == "ok" and coefficient is not None and exponent is not None:
        k, a = coefficient.estimate, exponent.estimate
        usable = sum(optimum.status == "ok" for optimum in fit.isoflop.optima)
        sides.append(_Side(f"{name}, iso-FLOP", f"{usable} budgets", lambda flops: k * flops**a, None))
    return sides


def _rule_of(estimate: LossSurface) -> Rule:
    return lambda flops: estimate.optimum(flops)[0]


def _published(flops: float) -> list[_Side]:
    """The published laws."""
    sides = []
    for law in published_optima(flops):
        constants = chinchilla_constants(law.key)
        surface = None if constants is None else LossSurface(constants[None, :], 0.9)
        sides.append(_Side(law.name, law.citation, partial(optimal_params, law.key), surface))
    return sides


def _placement(side: _Side, flops: float) -> Placement:
    params = float(np.ravel(side.rule(np.array([flops])))[0])
    tokens = flops / 6.0 / params
    return Placement(name=side.name, source=side.source, params=params, tokens=tokens, tokens_per_param=tokens / params)


def _cost(follows: _Side, true: _Side, surface: LossSurface, flops: float, usd: Interval) -> WrongLaw:
    params = float(np.ravel(follows.rule(np.array([flops])))[0])
    loss = surface.loss(params, flops / 6.0 / params)
    best = surface.optimal_loss(flops)
    wasted = flops - surface.flops(*surface.cheapest(loss))

    def shortfall(ln_flops: FloatArray) -> FloatArray:
        size = follows.rule(np.exp(ln_flops))
        return np.asarray(best - surface.loss(size, np.exp(ln_flops) / 6.0 / size))

    start = np.full(len(best), math.log(flops))
    needed = np.exp(bisect(shortfall, start, start + math.log(_MOST_MAKE_UP)))
    make_up = np.where(needed < 0.999 * flops * _MOST_MAKE_UP, needed - flops, np.inf)
    extra = surface.interval(make_up) if math.isfinite(make_up[0]) else None
    return WrongLaw(
        follows=follows.name,
        true=true.name,
        loss=surface.interval(loss),
        loss_excess=surface.interval(loss - best),
        wasted_flops=surface.interval(wasted),
        wasted_share=surface.interval(wasted / flops),
        make_up_flops=extra,
        make_up_usd=None if extra is None else _dollars(extra, flops, usd),
    )


def _dollars(extra: Interval, flops: float, usd: Interval) -> Interval:
    """Dollars are in proportion to FLOPs; the lowest of both ranges together, and the highest."""

    def times(part: float | None, price: float | None) -> float | None:
        return None if part is None or price is None else part / flops * price

    low = times(extra.estimate if extra.low is None else extra.low, usd.low)
    high = None if extra.low is not None and extra.high is None else times(extra.high or extra.estimate, usd.high)
    return Interval(estimate=extra.estimate / flops * usd.estimate, low=low, high=high)


def _usd(bound: float | None) -> str:
    return "?" if bound is None else format_usd(bound)
