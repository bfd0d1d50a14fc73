from __future__ import annotations

from typing import Any

import pytest

from scaling.cost.page import listing, page
from scaling.cost.run import RunCost, Team, cost_of_run, devices_within
from scaling.errors import UserError
from scaling.hardware import accelerators, cluster_estimate
from scaling.shape import ModelShape

from .published import LLAMA_8B

FLOPS, TOKENS, BATCH = 7.2e23, 15e12, 512 * 8192


def _made(**more: Any) -> RunCost:
    cluster = cluster_estimate(FLOPS, 1024, "h100", price=2.0)
    return cost_of_run(LLAMA_8B, TOKENS, BATCH, FLOPS, cluster, **more)


def test_the_total_is_the_sum_of_its_parts_at_every_end() -> None:
    made = _made(team=Team(people=10, salary_usd=365_000))
    assert made.cluster.failures_usd is not None
    parts = (made.cluster.usd, made.cluster.failures_usd, made.storage.usd, made.salaries_usd)
    for end in ("estimate", "low", "high"):
        assert getattr(made.total_usd, end) == pytest.approx(sum(getattr(part, end) for part in parts))
    # Ten people at 1,000 dollars a day, for as long as the run takes by the clock.
    assert made.salaries_usd.estimate == pytest.approx(10_000 * made.wall_days.estimate)


def test_failures_lengthen_the_run_and_are_paid_for_in_dollars_and_energy() -> None:
    made = _made()
    cluster = made.cluster
    assert cluster.goodput is not None and cluster.failures_usd is not None and cluster.energy_kwh is not None
    longer = 1 / cluster.goodput.estimate
    assert made.wall_days.estimate == pytest.approx(cluster.days.estimate * longer)
    assert cluster.failures_usd.estimate == pytest.approx(cluster.usd.estimate * (longer - 1))
    alone = cluster_estimate(FLOPS, 1024, "h100").energy_kwh
    assert alone is not None and cluster.energy_kwh.estimate == pytest.approx(alone.estimate * longer)


def test_storage_holds_checkpoints_and_tokens() -> None:
    storage = _made().storage
    assert storage.checkpoint_bytes == pytest.approx(12 * 8.03e9, rel=0.01)
    assert storage.data_bytes == 4 * TOKENS
    assert 0 < storage.usd.estimate < 10_000


def test_a_power_cap_says_how_many_devices_are_within() -> None:
    made = _made(power_cap_kw=1000.0, pue=1.25)
    assert made.cluster.site_kw == pytest.approx(1024 * 1.275 * 1.25)
    assert made.devices_within_cap == int(1000 / (1.275 * 1.25))
    assert "the run is over it: 627 x H100 are within" in page(made)
    assert "the run is within it" in page(_made(power_cap_kw=2000.0, pue=1.25))


def test_what_has_no_layout_is_priced_all_the_same_and_says_why() -> None:
    shape = ModelShape(
        architecture="lstm", layers=2, width=256, heads=1, kv_heads=1, ffn_width=256, vocabulary=512, context=128
    )
    made = cost_of_run(shape, 1e9, 2**16, 1e16, cluster_estimate(1e16, 1, "epyc"))
    assert made.cluster.plan is None and made.no_plan is not None
    assert "no parallelism plan" in page(made)
    assert made.crossed == () and made.next_threshold is not None


def test_devices_within_days_are_the_least_power_of_two() -> None:
    gpus = devices_within(20, FLOPS, "h100")
    assert cluster_estimate(FLOPS, gpus, "h100").days.estimate <= 20
    assert cluster_estimate(FLOPS, gpus // 2, "h100").days.estimate > 20
    with pytest.raises(UserError, match="days is 0"):
        devices_within(0, FLOPS, "h100")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"team": Team(people=-1)}, "people is -1"),
        ({"team": Team(people=1, salary_usd=float("inf"))}, "salary_usd is inf"),
        ({"power_cap_kw": 0.0}, "power_cap_kw is 0"),
        ({"region": "atlantis"}, "'atlantis' is not in the table"),
    ],
)
def test_impossible_accounts_are_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _made(**more)


def test_pages_fit_a_hundred_columns_and_name_every_part() -> None:
    text = page(_made(team=Team(people=10), power_cap_kw=1.0, region="france"))
    assert max(len(line) for line in text.splitlines()) <= 100
    money = ("compute", "failures", "storage", "salaries", "total")
    for part in (
        *money,
        "by the clock",
        "checkpoint",
        "energy",
        "france",
        "over 1e23",
        "below 1e25",
        "layout",
        "memory",
    ):
        assert part in text
    listed = listing()
    assert max(len(line) for line in listed.splitlines()) <= 100
    assert all(one.name in listed for one in accelerators())


def test_a_layout_far_from_what_the_dollars_count_on_is_said() -> None:
    """A small batch over many devices: stages wait, and the range of MFU was reported for larger ones."""
    cluster = cluster_estimate(FLOPS, 8192, "h100")
    poor = cost_of_run(LLAMA_8B, TOKENS, 64 * 8192, FLOPS, cluster)
    assert poor.cluster.plan is not None and cluster.mfu.low is not None
    assert poor.cluster.plan.mfu < cluster.mfu.low
    assert "take fewer devices, a larger batch, or --mfu" in " ".join(page(poor).split())
    assert "take fewer devices" not in page(_made())


def test_the_width_moves_the_hours_of_accelerators_alone() -> None:
    for name, less in (("h100", True), ("epyc", False)):
        narrow, wide = (cluster_estimate(1e18, 1, name, width=width).gpu_hours.estimate for width in (512, 4096))
        assert (narrow > 1.5 * wide) == less
