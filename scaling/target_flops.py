"""What a large run may cost, in whatever unit it is asked for, as training FLOPs.

Money, days, energy and carbon are those of the cluster's own account (``ClusterWanted.estimate``): FLOPs are found at
which it comes to what was given. The MFU depends on the model's width and failures on its size, which follow from the
FLOPs in turn; ``shape_at`` says how.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from typing import Literal

from scaling import architectures
from scaling.allocation import allocate
from scaling.cluster_wanted import ClusterWanted
from scaling.cost.energy import carbon
from scaling.cost.energy import region as find_region
from scaling.cost.failures import failure_account
from scaling.cost.run import energy_of_run
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.hardware import accelerator as find_accelerator
from scaling.limits import Limits
from scaling.quantity import format_energy, format_flops, format_mass, format_power, format_usd
from scaling.record import Interval
from scaling.shape import ModelShape
from scaling.target import Target

__all__ = ["bought", "target_of"]

REACH = 1e8
"""Times the largest fitted compute: no loss is looked for beyond."""
_CLOSE, _TRIES = 1e-5, 20

ShapeAt = Callable[[float], ModelShape]
"""The model that so many FLOPs would train."""
Unit = Literal["days", "usd", "kwh", "tco2e"]


def target_of(
    fit: Fit | None,
    wanted: ClusterWanted,
    limits: Limits,
    *,
    flops: float | None = None,
    days: float | None = None,
    by: date | None = None,
    start: date | None = None,
    usd: float | None = None,
    loss: float | None = None,
    kwh: float | None = None,
    tco2e: float | None = None,
    shape_at: ShapeAt | None = None,
) -> Target:
    """The target from exactly one of: ``flops``; ``days`` of ``wanted.gpus`` or of what its power feeds; ``by``, a date
    until which they train from ``start`` on (today); ``usd`` for accelerators; ``kwh`` at the site's meter; ``tco2e``,
    tonnes of CO2e by the grid of ``wanted.region``; or a ``loss`` (nats a token) to reach with the least compute by
    ``fit``.

    ``limits`` on energy and carbon hold it down. Without ``shape_at`` the model is a wide one, and failures take no
    energy. Raises :class:`UserError` where none or several are given, or one can't be.
    """
    given = {"flops": flops, "days": days, "by": by, "usd": usd, "kwh": kwh, "tco2e": tco2e, "loss": loss}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise UserError(
            "the target is flops, gpus and days together, gpus and a date (by), usd, kwh, tco2e, or a loss to reach: "
            f"give exactly one of them ({', '.join(named) or 'none'} given)"
        )
    held = [] if wanted.held is None else [wanted.held]
    if by is not None:
        days = _days_until(by, start or date.today())
    if days is not None:
        made = _for_days(days, by, wanted, shape_at)
    elif usd is not None:
        made = _for_dollars(usd, wanted, shape_at)
    elif kwh is not None:
        made = _for_energy("kwh", kwh, wanted, shape_at)
    elif tco2e is not None:
        made = _for_energy("tco2e", tco2e, wanted, shape_at)
    elif loss is not None:
        assert fit is not None, "a loss is found on a fit"
        made = _for_loss(fit, loss)
    else:
        assert flops is not None
        if not (math.isfinite(flops) and flops >= 1e6):
            raise UserError(f"flops is {flops:g}: the target must be a finite number of FLOPs, for example 1e21")
        made = Target(flops=flops, asked=format_flops(flops))
    for unit, most in (("kwh", limits.max_kwh), ("tco2e", limits.max_tco2e)):
        if most is None:
            continue
        within = _for_energy(unit, most, wanted, shape_at)  # type: ignore[arg-type]
        if within.flops < made.flops:
            held.append(f"The compute is held from {format_flops(made.flops)} to what {within.asked} train.")
            made = Target(flops=within.flops, asked=made.asked, interval=within.interval)
    return made.model_copy(update={"held": tuple(held)})


def bought(unit: Unit, amount: float, wanted: ClusterWanted, shape_at: ShapeAt | None = None) -> Interval:
    """FLOPs that ``amount`` days, dollars, kWh or tonnes of CO2e train, between the ends of what each FLOP may cost.

    A FLOP of a larger model costs a little less or more than one of a smaller: the search repeats until the account of
    the FLOPs comes to the amount. Raises :class:`UserError` where the last of them costs nothing.
    """
    flops = before = 1e21
    for _ in range(_TRIES):
        cost = _cost(unit, flops, wanted, shape_at)
        if not cost.estimate > 0:
            raise UserError(_FREE[unit])
        found = flops * amount / cost.estimate
        if abs(math.log(found / flops)) < _CLOSE:
            break
        flops, before = found, flops
    else:
        found = min(found, before)  # at a border of widths or of clusters it would go to and fro for ever
    low, high = cost.low or cost.estimate, cost.high or cost.estimate
    return Interval(estimate=found, low=found * cost.estimate / high, high=found * cost.estimate / low)


_FREE: dict[Unit, str] = {
    "days": "days buy nothing here",
    "usd": "price is 0: dollars buy no end of free hours; give flops, or gpus and days",
    "kwh": "kwh buy no end of compute here: give flops",
    "tco2e": "the region's grid emits nothing, so that carbon buys no end of compute: give kwh, or flops",
}


def _cost(unit: Unit, flops: float, wanted: ClusterWanted, shape_at: ShapeAt | None) -> Interval:
    shape = None if shape_at is None else shape_at(flops)
    cluster = wanted.estimate(flops, None if shape is None else shape.width)
    if unit == "days":
        return cluster.days
    if unit == "usd":
        return cluster.usd
    assert cluster.energy_kwh is not None
    kwh = cluster.energy_kwh
    if shape is not None:
        kwh = energy_of_run(cluster, failure_account(architectures.total_params(shape), cluster.gpus))
    return kwh if unit == "kwh" else carbon(kwh, find_region(wanted.region))


def _for_days(days: float, by: date | None, wanted: ClusterWanted, shape_at: ShapeAt | None) -> Target:
    asked = wanted.by_power()
    if asked.gpus is None:
        raise UserError(
            f"{'by' if by else 'days'} needs gpus beside it: how many accelerators train, as in --gpus 1024, or the "
            "power that they may take"
        )
    if asked.gpus < 1 or not (math.isfinite(days) and days > 0):
        raise UserError(f"gpus is {asked.gpus} and days is {days:g}: both must be more than 0")
    until = f" (until {by})" if by else ""
    fed = "" if wanted.gpus is not None else f", as {format_power(wanted.power_cap_kw or 0)} feed,"
    return Target(
        flops=bought("days", days, asked, shape_at).estimate,
        asked=f"{asked.gpus:,} x {find_accelerator(wanted.accelerator).name}{fed} for {days:g} days{until}",
    )


def _days_until(by: date, start: date) -> float:
    days = (by - start).days
    if days < 1:
        raise UserError(f"by is {by}, and training would start on {start}: give a later date")
    return float(days)


def _for_dollars(usd: float, wanted: ClusterWanted, shape_at: ShapeAt | None) -> Target:
    if not (math.isfinite(usd) and usd > 0):
        raise UserError(f"usd is {usd:g}: give dollars above 0, for example 1e6")
    flops = bought("usd", usd, wanted, shape_at)
    device = find_accelerator(wanted.accelerator)
    hourly = device.usd_per_hour.estimate if wanted.price is None else wanted.price
    return Target(
        flops=flops.estimate, interval=flops, asked=f"{format_usd(usd)} of {device.name} hours at ${hourly:g}"
    )


def _for_energy(
    unit: Literal["kwh", "tco2e"], amount: float, wanted: ClusterWanted, shape_at: ShapeAt | None
) -> Target:
    if not (math.isfinite(amount) and amount > 0):
        what = "kilowatt-hours" if unit == "kwh" else "tonnes of CO2e"
        raise UserError(f"{unit} is {amount:g}: give {what} above 0, for example 1e5")
    flops = bought(unit, amount, wanted, shape_at)
    if unit == "kwh":
        said = f"{format_energy(amount)} at the meter"
    else:
        said = f"{format_mass(amount)} of CO2e by the grid of {find_region(wanted.region).name}"
    return Target(flops=flops.estimate, interval=flops, asked=f"{said} for {find_accelerator(wanted.accelerator).name}")


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
