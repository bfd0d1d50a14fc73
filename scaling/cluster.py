"""What a run takes on a number of accelerators."""

from __future__ import annotations

from scaling.cost.parallel_plan import ParallelPlan
from scaling.record import Interval, Record

__all__ = ["ClusterEstimate"]


class ClusterEstimate(Record):
    """What the run costs on a named accelerator. Days, GPU-hours and dollars are those of training alone; what failures
    add is in ``goodput`` and ``failures_usd``."""

    accelerator: str
    gpus: int
    mfu: Interval
    """Achieved share of the dense bf16 peak; the interval is the range that practice shows at this scale."""
    days: Interval
    gpu_hours: Interval
    usd: Interval
    price_usd_per_gpu_hour: Interval
    source: str
    site_kw: float | None = None
    """What the site must be able to give: rated power of the servers times PUE."""
    region: str | None = None
    """Grid that ``tco2e`` is for."""
    energy_kwh: Interval | None = None
    """At the site's meter; over all the wall time where ``goodput`` is known."""
    tco2e: Interval | None = None
    """Tonnes of CO2 equivalent, location-based."""
    thresholds: tuple[str, ...] = ()
    """Regulatory thresholds of training compute that the run crosses."""
    goodput: Interval | None = None
    """Training time over wall time, failures and checkpoints taken off."""
    failures_usd: Interval | None = None
    """What that costs on top of ``usd``."""
    plan: ParallelPlan | None = None
