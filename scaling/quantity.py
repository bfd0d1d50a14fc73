"""Numbers as people write them: 72B, 2.2T, 9.4e23 FLOPs, $1.33M, 3 min 40 s."""

from __future__ import annotations

import math

from scaling.record import Interval

__all__ = [
    "format_bytes",
    "format_count",
    "format_duration",
    "format_energy",
    "format_flops",
    "format_interval",
    "format_mass",
    "format_percent",
    "format_power",
    "format_usd",
]

_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def format_count(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits with k, M, B or T: 72B, 2.2T, 28.1k, 640."""
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.{digits}g}")
    for size, suffix in _SUFFIXES:
        if abs(rounded) >= size:
            return f"{rounded / size:.{digits}g}{suffix}" if abs(rounded) < 1e15 else f"{value:.{digits - 1}e}"
    return f"{rounded:.{digits}g}"


def format_flops(value: float) -> str:
    """Scientific, two digits: 9.4e+23 becomes ``9.4e23 FLOPs``."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def format_interval(interval: Interval, digits: int = 3) -> str:
    """``72B [57B, 91B]``; an open side is shown as ``?``."""
    low, high = (("?" if bound is None else format_count(bound, digits)) for bound in (interval.low, interval.high))
    return f"{format_count(interval.estimate, digits)} [{low}, {high}]"


def format_percent(interval: Interval, digits: int = 1) -> str:
    """A share as ``12.3% [10.1%, 15.0%]``; an open side is shown as ``?``, and an interval open on both not at all."""
    if interval.low is None and interval.high is None:
        return f"{interval.estimate:.{digits}%}"
    low, high = ("?" if bound is None else f"{bound:.{digits}%}" for bound in (interval.low, interval.high))
    return f"{interval.estimate:.{digits}%} [{low}, {high}]"


def format_usd(value: float) -> str:
    """``$1.33M``, ``$640``."""
    return f"${format_count(value)}"


def format_bytes(value: float) -> str:
    """``640 B``, ``12.3 MB``, ``1.2 TB``; of 1,000, as disks are sold."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def format_duration(seconds: float) -> str:
    """``8 s``, ``3 min 40 s``, ``2 h 5 min``, ``27.0 days``."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"


def format_energy(kwh: float) -> str:
    """``640 Wh``, ``12 kWh``, ``3.4 MWh``, ``25.6 GWh``."""
    for size, unit in ((1e6, "GWh"), (1e3, "MWh"), (1.0, "kWh")):
        if kwh >= size:
            return f"{float(f'{kwh / size:.3g}'):g} {unit}"
    return f"{float(f'{kwh * 1e3:.3g}'):g} Wh"


def format_mass(tonnes: float) -> str:
    """CO2 as people write it: ``640 g``, ``12 kg``, ``4,400 t``."""
    if tonnes >= 1:
        return f"{float(f'{tonnes:.3g}'):,g} t" if tonnes < 1e6 else f"{format_count(tonnes)}t"
    return f"{float(f'{tonnes * 1e3:.3g}'):g} kg" if tonnes >= 1e-3 else f"{float(f'{tonnes * 1e6:.3g}'):g} g"


def format_power(kilowatts: float) -> str:
    """``1.53 kW``, ``1,570 kW``, ``25.1 MW``."""
    size, unit = (1e3, "MW") if kilowatts >= 1e4 else (1.0, "kW")
    return f"{float(f'{kilowatts / size:.3g}'):,g} {unit}"
