"""What a large run may cost, in whatever unit it is asked for, as training FLOPs."""

from __future__ import annotations

import math
from datetime import date

from scaling.allocation.surface import LossSurface
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.hardware import accelerator as find_accelerator
from scaling.hardware import achieved_mfu, cluster_flops
from scaling.quantity import format_flops, format_usd
from scaling.record import Interval
from scaling.target import Target

__all__ = ["DEFAULT_ACCELERATOR", "target_of"]

DEFAULT_ACCELERATOR = "H100"
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
    device = find_accelerator(name)
    hourly = device.usd_per_hour if price is None else Interval(estimate=price, low=price, high=price)
    if not hourly.estimate > 0:
        raise UserError(f"price is {hourly.estimate:g}: dollars buy no end of free hours; give flops, or gpus and days")
    share = achieved_mfu(gpus)[0] if mfu is None else Interval(estimate=mfu, low=mfu, high=mfu)
    if not 0 < share.estimate <= 1:
        raise UserError(f"mfu is {share.estimate:g}: it is a share of the dense peak, between 0 and 1")

    def bought(reached: float | None, dollars_an_hour: float | None) -> float:
        return usd / (dollars_an_hour or hourly.estimate) * 3600 * device.bf16_flops * (reached or share.estimate)

    return Target(
        flops=bought(share.estimate, hourly.estimate),
        interval=Interval(
            estimate=bought(share.estimate, hourly.estimate),
            low=bought(share.low, hourly.high),
            high=bought(share.high, hourly.low),
        ),
        asked=f"{format_usd(usd)} of {device.name} hours at ${hourly.estimate:g}",
    )


def _for_loss(fit: Fit, loss: float) -> Target:
    surface = LossSurface.of(fit)
    floor = float(surface.theta_KP[0, 2])
    if not (math.isfinite(loss) and loss > floor):
        raise UserError(f"loss is {loss:g}: this law goes no lower than E = {floor:.4g} nats a token")
    needed = surface.interval(surface.flops(*surface.cheapest(loss)))
    return Target(flops=needed.estimate, interval=needed, asked=f"a loss of {loss:g} nats a token")
