"""Energy of a run at the site's meter, and what the region's grid emits for it.

kWh = device-hours x the device's share of its server's rated power x the share of that drawn in training x PUE.
"""

from __future__ import annotations

import difflib
import math
from functools import cache

from scaling.cost.tables import as_interval, running_costs, table
from scaling.errors import UserError
from scaling.record import Interval, Record

__all__ = [
    "DEFAULT_REGION", "Region", "carbon", "devices_within_power", "energy", "rated_site_watts", "region", "regions",
]  # fmt: skip

DEFAULT_REGION = "us"


class Region(Record):
    """A grid, and the grams of CO2 equivalent of one of its kilowatt-hours in ``year``."""

    name: str
    aliases: tuple[str, ...] = ()
    g_per_kwh: float
    year: int | None
    source: str


@cache
def regions() -> tuple[Region, ...]:
    """Every region of the table."""
    held = table("grid")
    return tuple(
        Region.model_validate(row | {"source": held.get(row["source"], row["source"])}) for row in held["region"]
    )


def region(name: str) -> Region:
    """The region called ``name``, or a grid of so many grams a kWh; :class:`UserError` with the nearest names."""
    try:
        grams = float(name)
    except ValueError:
        pass
    else:
        if not (math.isfinite(grams) and grams >= 0):
            raise UserError(f"region is {name}: grams of CO2e a kWh must be 0 or more")
        return Region(name=f"{grams:g} g/kWh", g_per_kwh=grams, year=None, source="given")
    plain = name.lower().replace(" ", "-").replace("_", "-")
    known = {called: one for one in regions() for called in (one.name, *one.aliases)}
    if plain in known:
        return known[plain]
    near = difflib.get_close_matches(plain, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(
        f"region {name!r} is not in the table.{hint} `scaling cost --list` shows them; grams of CO2e a kWh will do too"
    )


def _pue(pue: float | None) -> Interval:
    if pue is None:
        return as_interval(running_costs("pue"))
    if not (math.isfinite(pue) and pue >= 1):
        raise UserError(f"pue is {pue:g}: the site's power over its servers' is 1 or more, in practice 1.1 to 1.6")
    return Interval(estimate=pue, low=pue, high=pue)


def energy(
    device_hours: Interval, server_watts: float, *, pue: float | None = None, drawn_watts: float | None = None
) -> Interval:
    """kWh of ``device_hours`` in servers of ``server_watts`` rated power a device.

    ``drawn_watts`` replaces rated power and load by what a device was measured to take with its part of the server.
    """
    if drawn_watts is None:
        watts = as_interval(running_costs("load")).times(server_watts)
    elif math.isfinite(drawn_watts) and drawn_watts > 0:
        watts = Interval(estimate=drawn_watts, low=drawn_watts, high=drawn_watts)
    else:
        raise UserError(f"watts is {drawn_watts:g}: what a device draws with its part of the server is more than 0")
    return device_hours.times(watts).times(_pue(pue)).times(1e-3)


def carbon(kwh: Interval, grid: Region) -> Interval:
    """Tonnes of CO2 equivalent of ``kwh`` from ``grid``, by what it emits on average (location-based)."""
    return kwh.times(grid.g_per_kwh * 1e-6)


def rated_site_watts(server_watts: float, pue: float | None = None) -> float:
    """What a site must be able to give for one device: the server's rated power with the site's own on top."""
    return server_watts * _pue(pue).estimate


def devices_within_power(kilowatts: float, server_watts: float, pue: float | None = None) -> int:
    """How many devices a site of so many ``kilowatts`` can feed; :class:`UserError` where it is no power."""
    if not (math.isfinite(kilowatts) and kilowatts > 0):
        raise UserError(f"power_cap_kw is {kilowatts:g}: kilowatts that the site can give are more than 0")
    return int(kilowatts * 1e3 // rated_site_watts(server_watts, pue))
