"""What accelerators can do and cost, from ``data/accelerators.toml``, and what a run of given FLOPs takes on them."""

from __future__ import annotations

import difflib
import math
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from scaling.cluster import ClusterEstimate
from scaling.errors import UserError
from scaling.record import Interval, Record

__all__ = [
    "Accelerator",
    "accelerator",
    "achieved_mfu",
    "cluster_estimate",
    "cluster_flops",
    "peak_of_device",
    "price_of_device",
]


class Accelerator(Record):
    """One kind of accelerator; ``bf16_flops`` is the dense peak a second.

    ``device_names`` are those under which drivers show devices of that peak.
    """

    name: str
    aliases: tuple[str, ...]
    device_names: tuple[str, ...]
    bf16_flops: float
    memory_gib: float
    bandwidth_tb_s: float
    watts: float
    usd_per_hour: Interval
    source: str


@cache
def _table() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("scaling").joinpath("data/accelerators.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def _accelerators() -> dict[str, Accelerator]:
    known = {}
    for row in _table()["accelerator"]:
        price = row["usd_per_hour"]
        interval = Interval(estimate=price["typical"], low=price["low"], high=price["high"])
        one = Accelerator(**(row | {"usd_per_hour": interval}))
        for name in (one.name, *one.aliases):
            known[_plain(name)] = one
    return known


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "").replace("_", "")


def accelerator(name: str) -> Accelerator:
    """The accelerator called ``name``, whatever its case; :class:`UserError` with the nearest names if unknown."""
    known = _accelerators()
    found = known.get(_plain(name))
    if found is not None:
        return found
    near = difflib.get_close_matches(_plain(name), known, n=1)
    hint = f" Did you mean {known[near[0]].name}?" if near else ""
    names = ", ".join(dict.fromkeys(one.name for one in known.values()))
    raise UserError(f"accelerator {name!r} is not in the table.{hint} ({names})")


def _device_called(device_name: str) -> Accelerator | None:
    """Only whole names count: an "H100 PCIe", or a slice of a card, is slower than what its name begins with."""
    return next((one for one in _accelerators().values() if device_name in one.device_names), None)


def peak_of_device(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of the device that its driver calls ``device_name``; None if the table doesn't know it."""
    found = _device_called(device_name)
    return None if found is None else found.bf16_flops


def price_of_device(device_name: str) -> float | None:
    """Typical dollars an hour of the device that its driver calls ``device_name``; None if the table has no such."""
    found = _device_called(device_name)
    return None if found is None else found.usd_per_hour.estimate


def achieved_mfu(gpus: int) -> tuple[Interval, str]:
    """The share of the dense bf16 peak that practice reaches with ``gpus`` together, and its source."""
    rows = _table()["mfu"]
    row = next((row for row in rows if gpus <= row["up_to_gpus"]), rows[-1])
    return Interval(estimate=row["typical"], low=row["low"], high=row["high"]), row["source"]


def _mfu(gpus: int, mfu: float | None) -> tuple[Interval, str]:
    if mfu is None:
        return achieved_mfu(gpus)
    if not 0 < mfu <= 1:
        raise UserError(f"mfu is {mfu:g}: it is a share of the dense peak, between 0 and 1, in practice 0.3 to 0.5")
    return Interval(estimate=mfu, low=mfu, high=mfu), "given"


def cluster_flops(gpus: int, days: float, name: str, mfu: float | None = None) -> float:
    """FLOPs that ``gpus`` accelerators deliver in ``days``: gpus x seconds x dense bf16 peak x MFU."""
    if gpus < 1 or not (math.isfinite(days) and days > 0):
        raise UserError(f"gpus is {gpus} and days is {days:g}: both must be more than 0")
    return gpus * days * 86_400 * accelerator(name).bf16_flops * _mfu(gpus, mfu)[0].estimate


def cluster_estimate(
    flops: float, gpus: int, name: str, mfu: float | None = None, price: float | None = None
) -> ClusterEstimate:
    """What ``flops`` take on ``gpus`` accelerators; days, hours and dollars carry the ranges of MFU and price.

    Raises :class:`UserError` for an unknown accelerator, no GPUs, or an MFU or price that can't be.
    """
    device = accelerator(name)
    if gpus < 1:
        raise UserError(f"gpus is {gpus}: a run needs 1 or more")
    share, source = _mfu(gpus, mfu)
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"price is {price:g}: it must be dollars a GPU-hour, 0 or more")
    hourly = device.usd_per_hour if price is None else Interval(estimate=price, low=price, high=price)

    def hours(reached: float | None) -> float:
        return flops / (device.bf16_flops * (reached or share.estimate)) / 3600

    gpu_hours = Interval(estimate=hours(share.estimate), low=hours(share.high), high=hours(share.low))
    return ClusterEstimate(
        accelerator=device.name,
        gpus=gpus,
        mfu=share,
        gpu_hours=gpu_hours,
        days=_times(gpu_hours, Interval(estimate=1 / gpus / 24, low=1 / gpus / 24, high=1 / gpus / 24)),
        usd=_times(gpu_hours, hourly),
        price_usd_per_gpu_hour=hourly,
        source=f"{device.source}; MFU: {source}",
    )


def _times(first: Interval, second: Interval) -> Interval:
    """The product of two positive ranges: low with low, high with high."""
    return Interval(
        estimate=first.estimate * second.estimate,
        low=(first.low or 0.0) * (second.low or 0.0),
        high=(first.high or 0.0) * (second.high or 0.0),
    )
