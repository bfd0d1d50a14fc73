"""The share of the dense bf16 peak that practice reaches (MFU), by how many accelerators and how wide the model."""

from __future__ import annotations

import itertools
import math

from scaling.cost.tables import as_interval, table
from scaling.record import Interval

__all__ = ["achieved_mfu", "narrowest_measured", "width_gain", "width_share"]

_MEASURED_ON = ("A100", "H100")


def achieved_mfu(gpus: int, width: int | None = None) -> tuple[Interval, str]:
    """The range reported with ``gpus`` together, and its source; narrower models (``width``) reach less of it."""
    rows = table("mfu")["by_gpus"]
    row = next((row for row in rows if gpus <= row["up_to_gpus"]), rows[-1])
    reported, source = as_interval(row), str(row["source"])
    share = 1.0 if width is None else width_share(width)
    if share == 1:
        return reported, source
    return reported.times(share), f"{source}; {share:.2f} of it at width {width:,}: {table('mfu')['width']['source']}"


def width_share(width: float, measured_on: str | None = None) -> float:
    """MFU of a model ``width`` wide over that of one of 4,096 or more, as measured; below 768 in proportion to it.

    measured_on: "A100" or "H100" for what that one alone shows; ``nan`` at widths that it was not measured at.
    """
    column = measured_on or "share"
    rows = [(row["width"], row[column]) for row in _width_rows() if column in row]
    (narrowest, least), (widest, most) = rows[0], rows[-1]
    if width < narrowest and measured_on is not None:
        return math.nan
    if width <= narrowest:
        return float(least * width / narrowest)
    if width >= widest:
        return float(most)
    (below, low), (above, high) = next(pair for pair in itertools.pairwise(rows) if width <= pair[1][0])
    return float(low + (high - low) * math.log(width / below) / math.log(above / below))


def width_gain(narrow: float, wide: float) -> Interval:
    """MFU at the width ``wide`` over that at ``narrow``, between what the two accelerators that were measured show;
    open on both sides where fewer than two were."""
    shown = [width_share(wide, device) / width_share(narrow, device) for device in _MEASURED_ON]
    told = [gain for gain in shown if not math.isnan(gain)]
    estimate = width_share(wide) / width_share(narrow)
    if len(told) < len(_MEASURED_ON):
        return Interval(estimate=estimate, low=None, high=None)
    return Interval(estimate=estimate, low=min(estimate, *told), high=max(estimate, *told))


def narrowest_measured() -> float:
    """Below this width what a model reaches is an assumption."""
    return _width_rows()[0]["width"]


def _width_rows() -> list[dict[str, float]]:
    rows: list[dict[str, float]] = table("mfu")["width"]["rows"]
    return rows
