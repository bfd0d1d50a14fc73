"""What a run takes on a number of accelerators."""

from __future__ import annotations

from scaling.record import Interval, Record

__all__ = ["ClusterEstimate"]


class ClusterEstimate(Record):
    """What the run costs on a named accelerator; energy and carbon come with the cost issue."""

    accelerator: str
    gpus: int
    mfu: Interval
    """Achieved share of the dense bf16 peak; the interval is the range that practice shows at this scale."""
    days: Interval
    gpu_hours: Interval
    usd: Interval
    price_usd_per_gpu_hour: Interval
    source: str
