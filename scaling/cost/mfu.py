"""The share of the dense bf16 peak that practice reaches (MFU), by how many accelerators and how wide the model."""

from __future__ import annotations

import itertools
import math

from scaling.cost.tables import as_interval, table
from scaling.record import Interval

__all__ = ["achieved_mfu", "width_share"]


def achieved_mfu(gpus: int, width: int | None = None) -> tuple[Interval, str]:
    """The range reported with ``gpus`` together, and its source; narrower models (``width``) reach less of it."""
    rows = table("mfu")["by_gpus"]
    row = next((row for row in rows if gpus <= row["up_to_gpus"]), rows[-1])
    reported, source = as_interval(row), str(row["source"])
    share = 1.0 if width is None else width_share(width)
    if share == 1:
        return reported, source
    return reported.times(share), f"{source}; {share:.2f} of it at width {width:,}: {table('mfu')['width']['source']}"


def width_share(width: float) -> float:
    """MFU of a model ``width`` wide over that of one of 4,096 or more, as measured; below 768 in proportion to it."""
    rows = [(row["width"], row["share"]) for row in table("mfu")["width"]["rows"]]
    (narrowest, least), (widest, most) = rows[0], rows[-1]
    if width <= narrowest:
        return float(least * width / narrowest)
    if width >= widest:
        return float(most)
    (below, low), (above, high) = next(pair for pair in itertools.pairwise(rows) if width <= pair[1][0])
    return float(low + (high - low) * math.log(width / below) / math.log(above / below))
