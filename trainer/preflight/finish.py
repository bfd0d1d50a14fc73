"""When will the run end?"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from scaling.quantity import format_count, format_duration
from scaling.record import Interval
from scaling.run_spec import RunSpec
from trainer.loop.run import EVALUATION_SHARE
from trainer.preflight.check import Check

__all__ = ["project_finish"]

QUANTILES = (0.1, 0.9)
"""Of the seconds that the measured steps took: the run as fast as the fast ones, and as slow as the slow ones."""
LEAST_SHARE = 0.85
"""Of the processor: with less, others compute on it."""


def project_finish(
    spec: RunSpec,
    done_steps: int,
    step_seconds: Sequence[float],
    waited_seconds: float,
    every_seconds: float,
    processor_share: float = 1.0,
) -> tuple[Check, Interval]:
    """``step_seconds``: of steps without the first, which builds kernels. ``waited_seconds``: of one checkpoint, due
    ``every_seconds``. ``processor_share``: of the steps' time that a CPU computed for this run; what others took
    they may leave to it, and the interval begins there. It is of a machine that gets no busier than it is."""
    remaining = spec.steps - done_steps
    # A forward pass is a third of a step, and the last look takes the whole held-out set.
    looks = remaining * EVALUATION_SHARE + spec.held_out_tokens / (3 * spec.global_batch_tokens)
    saving = 1 + waited_seconds / every_seconds
    typical, (fast, slow) = float(np.median(step_seconds)), np.quantile(step_seconds, QUANTILES)
    seconds = Interval(
        estimate=(remaining + looks) * typical * saving,
        low=(remaining + looks) * min(float(fast), typical * processor_share) * saving,
        high=(remaining + looks) * float(slow) * saving,
    )
    assert seconds.low is not None and seconds.high is not None
    now = datetime.datetime.now().astimezone()
    ends = [now + datetime.timedelta(seconds=bound) for bound in (seconds.low, seconds.high)]
    shown = [end.isoformat(sep=" ", timespec="minutes") for end in ends]
    rate = spec.global_batch_tokens / typical
    busy = processor_share < LEAST_SHARE
    others = f"; others took {1 - processor_share:.0%} of the processor meanwhile" if busy else ""
    check = Check(
        name="finish",
        status="warn" if busy else "ok",
        remedy="end what else computes here, or expect its end to move with theirs" if busy else None,
        said=f"{remaining:,} steps at {format_count(rate)} tokens/s take {format_duration(seconds.estimate)} "
        f"[{format_duration(seconds.low)}, {format_duration(seconds.high)}]: done between {shown[0]} and {shown[1]}"
        f"{others}",
        figures={
            "remaining_steps": remaining,
            "tokens_per_second": rate,
            "seconds": seconds.estimate,
            "seconds_low": seconds.low,
            "seconds_high": seconds.high,
            "steps_measured": len(step_seconds),
            "processor_share": processor_share,
        },
    )
    return check, seconds
