"""Failures of a long run on many devices: how often, how often to save, what share of the time is left for training.

The interval between checkpoints is Daly's (Future Generation Computer Systems 22, 2006; to first order Young's
sqrt(2 d M) of 1974), the wall time his exact expectation for exponential failures:

    T = M exp(R/M) (exp((tau + d)/M) - 1) T_s/tau

with M the mean time between interruptions, R the restart, d the time a checkpoint stops the run, tau the training time
between two of them, T_s the time the run would take without any.
"""

from __future__ import annotations

import math

from scaling.cost.tables import as_interval, running_costs
from scaling.errors import UserError
from scaling.record import Interval, Record

__all__ = ["FailureAccount", "checkpoint_interval", "checkpoint_seconds", "failure_account", "goodput"]


_MOST_RESTARTS = 500.0
"""Mean times between interruptions that a restart may take: beyond, the expected wall time overflows."""


class FailureAccount(Record):
    """Seconds. ``goodput`` is training time over wall time; its range is that of failure rates and restarts."""

    mean_time_between: Interval
    checkpoint_every: float
    checkpoint_takes: float
    restart_takes: float
    goodput: Interval
    source: str


def checkpoint_interval(mean_time_between: float, checkpoint: float) -> float:
    """Training time between checkpoints that loses least, by Daly's third-order formula; all in one unit."""
    if checkpoint >= 2 * mean_time_between:
        return mean_time_between
    ratio = checkpoint / (2 * mean_time_between)
    young = math.sqrt(2 * checkpoint * mean_time_between)
    return young * (1 + math.sqrt(ratio) / 3 + ratio / 9) - checkpoint


def goodput(mean_time_between: float, every: float, checkpoint: float, restart: float) -> float:
    """Share of the wall time that trains what is kept: Daly's expected time, turned over."""
    m = mean_time_between
    return every / (m * math.exp(restart / m) * math.expm1((every + checkpoint) / m))


def checkpoint_seconds(params: float, gpus: int) -> float:
    """How long a checkpoint of ``params`` parameters, written by all devices at once, stops the run."""
    known = running_costs("checkpoint")
    speed = min(gpus * known["write_gb_s_per_device"], known["write_gb_s_most"]) * 1e9
    return float(params * known["bytes_per_param"] / speed)


def failure_account(params: float, gpus: int) -> FailureAccount:
    """What interruptions take from a run of ``params`` total parameters on ``gpus`` devices.

    The interval is chosen for the typical rate, and kept where the rate turns out otherwise. Raises
    :class:`UserError` for no devices, and for so many that one fails before any restart is through.
    """
    if gpus < 1:
        raise UserError(f"gpus is {gpus}: a run needs 1 or more")
    interruptions, restarts = running_costs("interruptions"), running_costs("restart")
    between = as_interval(interruptions, "device_hours_").times(3600 / gpus)
    restart = as_interval(restarts, "minutes_").times(60)
    takes = checkpoint_seconds(params, gpus)
    if (restart.high or restart.estimate) + 2 * takes > _MOST_RESTARTS * (between.low or between.estimate):
        raise UserError(
            f"gpus is {gpus:,}: one of them fails every {between.estimate:.2g} s and a restart takes "
            f"{restart.estimate / 60:.0f} minutes, so that no run gets ahead: take fewer"
        )
    every = checkpoint_interval(between.estimate, takes)
    low, high = (
        goodput(m or between.estimate, every, takes, r or restart.estimate)
        for m, r in ((between.low, restart.high), (between.high, restart.low))
    )
    return FailureAccount(
        mean_time_between=between,
        checkpoint_every=every,
        checkpoint_takes=takes,
        restart_takes=restart.estimate,
        goodput=Interval(estimate=goodput(between.estimate, every, takes, restart.estimate), low=low, high=high),
        source=f"{interruptions['source']}; restart: {restarts['source']}",
    )
