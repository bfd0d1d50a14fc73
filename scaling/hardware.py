"""What accelerators and processors can do and cost, from ``data/accelerators.toml``, and what a run's FLOPs take on
them."""

from __future__ import annotations

import difflib
import math
from functools import cache
from typing import Literal

from scaling.cluster import ClusterEstimate
from scaling.cost.energy import DEFAULT_REGION, carbon, energy, rated_site_watts
from scaling.cost.energy import region as find_region
from scaling.cost.mfu import achieved_mfu
from scaling.cost.tables import as_interval, table
from scaling.cost.thresholds import crossed
from scaling.errors import UserError
from scaling.record import Interval, Record

__all__ = [
    "Accelerator",
    "accelerator",
    "accelerators",
    "cluster_estimate",
    "cluster_flops",
    "peak_of_device",
    "price_of_device",
]


class Accelerator(Record):
    """One kind of accelerator, or one socket of a processor; peaks are dense FLOPs a second.

    ``device_names`` are those under which drivers show devices of that peak. Where a precision's peak is None it has no
    unit for it. The data file says what each link, power and share is.
    """

    name: str
    kind: Literal["gpu", "tpu", "cpu"]
    aliases: tuple[str, ...]
    device_names: tuple[str, ...]
    bf16_flops: float
    fp8_flops: float | None = None
    fp4_flops: float | None = None
    tf32_flops: float | None = None
    fp32_flops: float | None = None
    memory_gib: float
    bandwidth_tb_s: float
    scale_up_gb_s: float
    scale_up_domain: int
    scale_out_gb_s: float
    watts: float
    server_watts: float
    kernel_share: float
    usd_per_hour: Interval
    source: str


@cache
def accelerators() -> tuple[Accelerator, ...]:
    """Every one of the table, in its order."""
    rows = table("accelerators")["accelerator"]
    return tuple(Accelerator(**(row | {"usd_per_hour": as_interval(row["usd_per_hour"])})) for row in rows)


@cache
def _accelerators() -> dict[str, Accelerator]:
    return {_plain(name): one for one in accelerators() for name in (one.name, *one.aliases)}


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


def _mfu(gpus: int, mfu: float | None, width: int | None = None) -> tuple[Interval, str]:
    if mfu is None:
        return achieved_mfu(gpus, width)
    if not 0 < mfu <= 1:
        raise UserError(f"mfu is {mfu:g}: it is a share of the dense peak, between 0 and 1, in practice 0.3 to 0.5")
    return Interval(estimate=mfu, low=mfu, high=mfu), "given"


def cluster_flops(gpus: int, days: float, name: str, mfu: float | None = None) -> float:
    """FLOPs that ``gpus`` accelerators deliver in ``days``: gpus x seconds x dense bf16 peak x MFU."""
    if gpus < 1 or not (math.isfinite(days) and days > 0):
        raise UserError(f"gpus is {gpus} and days is {days:g}: both must be more than 0")
    return gpus * days * 86_400 * accelerator(name).bf16_flops * _mfu(gpus, mfu)[0].estimate


def cluster_estimate(
    flops: float,
    gpus: int,
    name: str,
    mfu: float | None = None,
    price: float | None = None,
    *,
    width: int | None = None,
    region: str = DEFAULT_REGION,
) -> ClusterEstimate:
    """What ``flops`` take on ``gpus`` accelerators; days, hours, dollars, kWh and CO2 carry the ranges of their parts.

    ``width`` of the model moves the MFU of an accelerator where it isn't given (a processor is full at small products);
    ``region`` is a grid of ``data/grid.toml``. Failures and the layout depend on the model:
    ``scaling.cost.run.cost_of_run`` adds them. Raises :class:`UserError` for an unknown accelerator or region, no GPUs,
    or an MFU or price that can't be.
    """
    device, grid = accelerator(name), find_region(region)
    if gpus < 1:
        raise UserError(f"gpus is {gpus}: a run needs 1 or more")
    share, source = _mfu(gpus, mfu, None if device.kind == "cpu" else width)
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"price is {price:g}: it must be dollars a GPU-hour, 0 or more")
    hourly = device.usd_per_hour if price is None else Interval(estimate=price, low=price, high=price)

    def hours(reached: float | None) -> float:
        return flops / (device.bf16_flops * (reached or share.estimate)) / 3600

    gpu_hours = Interval(estimate=hours(share.estimate), low=hours(share.high), high=hours(share.low))
    kwh = energy(gpu_hours, device.server_watts)
    return ClusterEstimate(
        accelerator=device.name,
        gpus=gpus,
        mfu=share,
        gpu_hours=gpu_hours,
        days=gpu_hours.times(1 / gpus / 24),
        usd=gpu_hours.times(hourly),
        price_usd_per_gpu_hour=hourly,
        source=f"{device.source}; MFU: {source}",
        site_kw=gpus * rated_site_watts(device.server_watts) / 1e3,
        region=grid.name,
        energy_kwh=kwh,
        tco2e=carbon(kwh, grid),
        thresholds=tuple(row.name for row in crossed(flops)),
    )
