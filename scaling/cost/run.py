"""The whole account of one run: hours, money by what it is spent on, failures, energy, carbon, thresholds, layout."""

from __future__ import annotations

import math

from scaling import architectures
from scaling.cluster import ClusterEstimate
from scaling.cost.energy import DEFAULT_REGION, carbon, devices_within_power, energy, rated_site_watts
from scaling.cost.energy import region as find_region
from scaling.cost.failures import FailureAccount, failure_account
from scaling.cost.plan import fastest_plan
from scaling.cost.tables import as_interval, running_costs
from scaling.cost.thresholds import Threshold, crossed, thresholds
from scaling.errors import UserError
from scaling.hardware import accelerator, cluster_estimate
from scaling.record import Interval, Record
from scaling.shape import ModelShape

__all__ = ["MOST_DEVICES", "RunCost", "Storage", "Team", "cost_of_run", "devices_within", "energy_of_run"]

_DAYS_A_YEAR, _DAYS_A_MONTH = 365.0, 365.0 / 12
_NARROW_VOCABULARY = 2**16
"""Up to here a token is stored in two bytes, beyond in four."""
MOST_DEVICES = 2**20


class Team(Record):
    """People paid for the run; ``days`` of them, or as long as the run takes by the clock where that is None."""

    people: int = 0
    salary_usd: float = running_costs("people")["salary_usd"]
    """A year of one, everything in it."""
    days: float | None = None


class Storage(Record):
    """What lies on disk while the run goes."""

    checkpoint_bytes: float
    checkpoints_kept: int
    data_bytes: float
    usd: Interval


class RunCost(Record):
    """One run's account. Dollars, energy and carbon carry the ranges of MFU, price, failures and load together, all at
    their low ends or all at their high ends: wide on purpose."""

    params: float
    tokens: float
    flops: float
    context: int
    global_batch_tokens: int
    """As asked for; the layout's batch is the nearest that divides well."""
    cluster: ClusterEstimate
    wall_days: Interval
    """By the clock: failures, restarts and checkpoints among it."""
    failures: FailureAccount
    storage: Storage
    team: Team
    salaries_usd: Interval
    total_usd: Interval
    power_cap_kw: float | None
    devices_within_cap: int | None
    crossed: tuple[Threshold, ...]
    next_threshold: Threshold | None
    no_plan: str | None
    """Why there is no layout, where there is none."""


def cost_of_run(
    shape: ModelShape,
    tokens: float,
    global_batch_tokens: int,
    flops: float,
    cluster: ClusterEstimate,
    *,
    region: str | None = None,
    team: Team | None = None,
    power_cap_kw: float | None = None,
    pue: float | None = None,
    drawn_watts: float | None = None,
) -> RunCost:
    """The account of ``flops`` that train ``shape`` on ``tokens``, on a cluster that ``cluster_estimate`` described.

    Its ``cluster`` is the one given with failures, energy, carbon, thresholds and the fastest layout filled in.
    ``region`` is a grid's name or grams of CO2e a kWh, by default the cluster's. ``power_cap_kw`` is what the site can
    give. ``drawn_watts`` replaces rated power and load a device. Raises :class:`UserError` for what can't be.
    """
    team = team or Team()
    _checked(team, tokens)
    device = accelerator(cluster.accelerator)
    grid = find_region(region or cluster.region or DEFAULT_REGION)
    counts = architectures.get(shape.architecture).count_parameters(shape)
    failures = failure_account(counts.total, cluster.gpus)
    longer = _longer(failures)
    wall_days = cluster.days.times(longer)
    kwh = energy_of_run(cluster, failures, pue=pue, drawn_watts=drawn_watts)
    lost_usd = cluster.usd.times(
        Interval(estimate=longer.estimate - 1, low=(longer.low or 1) - 1, high=(longer.high or 1) - 1)
    )
    storage = _storage(shape, counts.total, tokens, wall_days)
    a_day = team.people * team.salary_usd / _DAYS_A_YEAR
    paid = wall_days if team.days is None else Interval(estimate=team.days, low=team.days, high=team.days)
    salaries = paid.times(a_day)
    plan, no_plan = None, None
    try:
        plan = fastest_plan(shape, device.name, cluster.gpus, global_batch_tokens)
    except UserError as error:
        no_plan = str(error)
    rows = crossed(flops)
    return RunCost(
        params=counts.total,
        tokens=tokens,
        flops=flops,
        context=shape.context,
        global_batch_tokens=global_batch_tokens,
        cluster=cluster.model_copy(
            update={
                "site_kw": cluster.gpus * rated_site_watts(device.server_watts, pue) / 1e3,
                "region": grid.name,
                "energy_kwh": kwh,
                "tco2e": carbon(kwh, grid),
                "thresholds": tuple(row.name for row in rows),
                "goodput": failures.goodput,
                "failures_usd": lost_usd,
                "plan": plan,
            }
        ),
        wall_days=wall_days,
        failures=failures,
        storage=storage,
        team=team,
        salaries_usd=salaries,
        total_usd=_sum(cluster.usd, lost_usd, storage.usd, salaries),
        power_cap_kw=power_cap_kw,
        devices_within_cap=(
            None if power_cap_kw is None else devices_within_power(power_cap_kw, device.server_watts, pue)
        ),
        crossed=rows,
        next_threshold=next((row for row in thresholds() if row.until is None and row.flops >= flops), None),
        no_plan=no_plan,
    )


def energy_of_run(
    cluster: ClusterEstimate, failures: FailureAccount, *, pue: float | None = None, drawn_watts: float | None = None
) -> Interval:
    """kWh at the site's meter over all the time by the clock, what failures and checkpoints take among it."""
    hours = cluster.gpu_hours.times(_longer(failures))
    return energy(hours, accelerator(cluster.accelerator).server_watts, pue=pue, drawn_watts=drawn_watts)


def devices_within(days: float, flops: float, name: str, mfu: float | None = None, *, width: int | None = None) -> int:
    """The least power of two of accelerators that train ``flops`` in ``days``; at most ``MOST_DEVICES``."""
    if not (math.isfinite(days) and days > 0):
        raise UserError(f"days is {days:g}: it must be more than 0")
    devices = 1
    while devices < MOST_DEVICES and cluster_estimate(flops, devices, name, mfu, width=width).days.estimate > days:
        devices *= 2
    return devices


def _longer(failures: FailureAccount) -> Interval:
    """Time by the clock over time that trains."""
    good = failures.goodput
    return Interval(estimate=1 / good.estimate, low=1 / (good.high or 1), high=1 / (good.low or 1))


def _storage(shape: ModelShape, params: float, tokens: float, wall_days: Interval) -> Storage:
    known, prices = running_costs("checkpoint"), as_interval(running_costs("storage"), "usd_per_gb_month_")
    checkpoint = params * known["bytes_per_param"]
    data = tokens * (2 if shape.vocabulary <= _NARROW_VOCABULARY else 4)
    gigabytes = (known["kept"] * checkpoint + data) / 1e9
    return Storage(
        checkpoint_bytes=checkpoint,
        checkpoints_kept=known["kept"],
        data_bytes=data,
        usd=wall_days.times(prices).times(gigabytes / _DAYS_A_MONTH),
    )


def _sum(*parts: Interval) -> Interval:
    return Interval(
        estimate=sum(part.estimate for part in parts),
        low=sum(part.low or 0.0 for part in parts),
        high=sum(part.high or 0.0 for part in parts),
    )


def _checked(team: Team, tokens: float) -> None:
    for name, value in (("people", team.people), ("salary_usd", team.salary_usd), ("team_days", team.days or 0)):
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"{name} is {value:g}: it must be 0 or more")
    if not (math.isfinite(tokens) and tokens >= 1):
        raise UserError(f"tokens is {tokens:g}: it must be 1 or more")
