"""What a large run may cost, in whatever unit it is asked for, as training FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date

from scaling.allocation import allocate
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.hardware import accelerator as find_accelerator
from scaling.hardware import cluster_estimate, cluster_flops
from scaling.quantity import format_flops, format_usd
from scaling.record import Interval
from scaling.target import Target

__all__ = ["DEFAULT_ACCELERATOR", "target_of"]

DEFAULT_ACCELERATOR = "H100"
REACH = 1e8
"""Times the largest fitted compute: no loss is looked for beyond."""
DOLLARS_GPUS = 1024
"""Dollars buy the same GPU-hours on few GPUs or on many; the achieved share of the peak is that of so many."""


def target_of(
    fit: Fit,
    *,
    flops: float | None = None,
    gpus: int | None = None,
    days: float | None = None,
    by: date | None = None,
    start: date | None = None,
    usd: float | None = None,
    loss: float | None = None,
    accelerator: str | None = None,
    mfu: float | None = None,
    price: float | None = None,
) -> Target:
    """The target from exactly one of: ``flops``; ``days`` (with ``gpus``); ``by``, a date until which ``gpus`` train
    from ``start`` on (today); ``usd`` for accelerators; or a ``loss`` (nats a token) to reach with the least compute.

    Raises :class:`UserError` where none or several are given, or one can't be.
    """
    given = {"flops": flops, "days": days, "by": by, "usd": usd, "loss": loss}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise UserError(
            "the target is flops, gpus and days together, gpus and a date (by), usd, or a loss to reach: give exactly "
            f"one of them ({', '.join(named) or 'none'} given)"
        )
    name = accelerator or DEFAULT_ACCELERATOR
    if by is not None:
        days = _days_until(by, start or date.today())
    if days is not None:
        if gpus is None:
            raise UserError(f"{named[0]} needs gpus beside it: how many accelerators train, as in --gpus 1024")
        until = f" (until {by})" if by else ""
        asked = f"{gpus:,} x {find_accelerator(name).name} for {days:g} days{until}"
        return Target(flops=cluster_flops(gpus, days, name, mfu), asked=asked)
    if usd is not None:
        return _for_dollars(usd, gpus or DOLLARS_GPUS, name, mfu, price)
    if loss is not None:
        return _for_loss(fit, loss)
    assert flops is not None
    if not (math.isfinite(flops) and flops >= 1e6):
        raise UserError(f"flops is {flops:g}: the target must be a finite number of FLOPs, for example 1e21")
    return Target(flops=flops, asked=format_flops(flops))


def _days_until(by: date, start: date) -> float:
    days = (by - start).days
    if days < 1:
        raise UserError(f"by is {by}, and training would start on {start}: give a later date")
    return float(days)


def _for_dollars(usd: float, gpus: int, name: str, mfu: float | None, price: float | None) -> Target:
    if not (math.isfinite(usd) and usd > 0):
        raise UserError(f"usd is {usd:g}: give dollars above 0, for example 1e6")
    one_flop = cluster_estimate(1.0, gpus, name, mfu, price)
    hourly = one_flop.price_usd_per_gpu_hour.estimate
    if not hourly > 0:
        raise UserError(f"price is {hourly:g}: dollars buy no end of free hours; give flops, or gpus and days")
    dear, cheap = one_flop.usd.high or one_flop.usd.estimate, one_flop.usd.low or one_flop.usd.estimate
    bought = Interval(estimate=usd / one_flop.usd.estimate, low=usd / dear, high=usd / cheap)
    asked = f"{format_usd(usd)} of {one_flop.accelerator} hours at ${hourly:g}"
    return Target(flops=bought.estimate, interval=bought, asked=asked)


def _for_loss(fit: Fit, loss: float) -> Target:
    """The least compute whose best run is forecast to reach ``loss``; its interval is where the bounds do."""
    floor = None if fit.drift.irreducible is None else fit.drift.irreducible[0]
    if not (math.isfinite(loss) and loss > 0):
        raise UserError(f"loss is {loss:g}: give nats a token above 0, for example 2.1")
    needed = _reaching(fit, loss, lambda forecast: forecast.estimate)
    if needed is None:
        known = "" if floor is None else f"; text admits an irreducible loss of {floor:.2f} or more here"
        raise UserError(
            f"loss is {loss:g}: by this fit no run within {REACH:.0e} times the largest fitted one reaches it{known}"
        )
    # A loss that may come out higher takes more compute to be sure of.
    low, high = (
        _reaching(fit, loss, lambda forecast: forecast.low),
        _reaching(fit, loss, lambda forecast: forecast.high),
    )
    interval = Interval(estimate=needed, low=None if low is None else min(low, needed), high=high)
    return Target(flops=needed, interval=interval, asked=f"a loss of {loss:g} nats a token")


def _reaching(fit: Fit, loss: float, side: Callable[[Interval], float | None]) -> float | None:
    """FLOPs at which ``side`` of the forecast of the compute-optimal run falls to ``loss``, by bisection in ln C."""

    def above(ln_flops: float) -> bool:
        forecast = allocate(fit, math.exp(ln_flops)).loss
        if forecast is None:
            raise UserError("this fit forecasts no loss, so no compute can be found that reaches one: give flops")
        value = side(forecast)
        return value is None or value > loss

    low, high = math.log(fit.fitted_range.flops[0] / 10), math.log(fit.fitted_range.flops[1] * REACH)
    if above(high):
        return None
    while high - low > 1e-3:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if above(middle) else (low, middle)
    return math.exp(high)
