from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.cost.mfu import achieved_mfu
from scaling.errors import UserError
from scaling.hardware import (
    Accelerator,
    accelerator,
    accelerators,
    cluster_estimate,
    cluster_flops,
    peak_of_device,
    price_of_device,
)

NAMES = ("A100", "H100", "H200", "B200", "GB200", "MI300X", "TPU v5p", "RTX 5090", "RTX 4090", "RTX 3090")


@pytest.mark.parametrize(
    ("written", "name"),
    [("h100", "H100"), ("H100", "H100"), ("h100-sxm", "H100"), ("a100_80gb", "A100"), ("4090", "RTX 4090"),
     ("tpu v5p", "TPU v5p"), ("mi300x", "MI300X"), ("GB200-NVL72", "GB200"), ("epyc", "EPYC 9654"),
     ("xeon-8480", "Xeon 8480+"), ("rtx 5090", "RTX 5090")],
)  # fmt: skip
def test_accelerators_answer_to_the_names_people_use(written: str, name: str) -> None:
    assert accelerator(written).name == name


def test_an_unknown_accelerator_is_answered_with_the_nearest_and_all_names() -> None:
    with pytest.raises(UserError, match=r"'h1000' .*Did you mean H100\?.*MI300X"):
        accelerator("h1000")


@pytest.mark.parametrize("name", NAMES)
def test_every_accelerator_has_a_source_and_prices_in_order(name: str) -> None:
    device = accelerator(name)
    price = device.usd_per_hour
    assert price.low is not None and price.high is not None
    assert 0 < price.low <= price.estimate <= price.high
    assert device.source
    # Dense bf16 FLOPs a byte of bandwidth lie between 75 and 400 on all: a sparse peak or a wrong unit would not.
    assert 75 < device.bf16_flops / (device.bandwidth_tb_s * 1e12) < 400


@pytest.mark.parametrize("device", accelerators(), ids=lambda device: device.name)
def test_peaks_links_and_power_are_in_their_order(device: Accelerator) -> None:
    peaks = [device.fp4_flops, device.fp8_flops, device.bf16_flops, device.tf32_flops, device.fp32_flops]
    known = [peak for peak in peaks if peak is not None]
    assert known == sorted(known, reverse=True)
    # Each halving of the bits doubles what a matrix unit does, by and large.
    for narrow, wide in ((device.fp4_flops, device.fp8_flops), (device.fp8_flops, device.bf16_flops)):
        assert narrow is None or wide is None or 1.9 < narrow / wide < 4.1
    assert device.scale_up_gb_s > device.scale_out_gb_s
    assert device.scale_up_gb_s < device.bandwidth_tb_s * 1000
    assert device.watts < device.server_watts < 2.1 * device.watts
    assert 0 < device.kernel_share < 1


def test_llama_3_405b_took_about_as_long_as_the_estimate_says() -> None:
    """3.8e25 FLOPs on 16,384 H100 (2407.21783, sections 3.1 and 3.3): at its 38 to 43% MFU about 65 days."""
    estimate = cluster_estimate(3.8e25, 16_384, "h100")
    assert estimate.mfu.estimate == pytest.approx(0.40, abs=0.03)
    assert estimate.days.estimate == pytest.approx(65, rel=0.1)
    # Meta reports 30.84M H100-hours for all of Llama 3.1 405B (its model card).
    assert estimate.gpu_hours.low is not None and estimate.gpu_hours.high is not None
    assert estimate.gpu_hours.low < 30.84e6 < estimate.gpu_hours.high


@given(
    gpus=st.integers(min_value=1, max_value=100_000),
    days=st.floats(min_value=0.01, max_value=400),
    name=st.sampled_from(NAMES),
    mfu=st.none() | st.floats(min_value=0.01, max_value=1),
)
def test_a_clusters_flops_take_it_as_many_days(gpus: int, days: float, name: str, mfu: float | None) -> None:
    estimate = cluster_estimate(cluster_flops(gpus, days, name, mfu), gpus, name, mfu)
    assert estimate.days.estimate == pytest.approx(days)
    assert estimate.gpu_hours.estimate == pytest.approx(gpus * days * 24)
    assert estimate.usd.estimate == pytest.approx(gpus * days * 24 * estimate.price_usd_per_gpu_hour.estimate)
    for interval in (estimate.days, estimate.gpu_hours, estimate.usd, estimate.mfu):
        assert interval.low is not None and interval.high is not None
        assert interval.low <= interval.estimate * (1 + 1e-12)
        assert interval.high >= interval.estimate * (1 - 1e-12)


def test_a_given_price_replaces_the_table() -> None:
    estimate = cluster_estimate(1e21, 8, "h100", mfu=0.4, price=3.0)
    hours = 1e21 / (989e12 * 0.4) / 3600
    assert estimate.usd.low == estimate.usd.estimate == estimate.usd.high == pytest.approx(3.0 * hours)


def test_more_gpus_do_not_reach_a_higher_share_of_the_peak() -> None:
    highs = [achieved_mfu(gpus)[0].high for gpus in (8, 1024, 16_384, 10**7)]
    assert all(later is not None and earlier is not None and later <= earlier
               for earlier, later in itertools.pairwise(highs))  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"gpus": 0}, "gpus is 0"),
        ({"gpus": 8, "mfu": 1.2}, "mfu is 1.2"),
        ({"gpus": 8, "mfu": 0.0}, "mfu is 0"),
        ({"gpus": 8, "price": -1.0}, "price is -1"),
    ],
)
def test_impossible_clusters_are_named(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=named):
        cluster_estimate(1e21, name="h100", **arguments)  # type: ignore[arg-type]


def test_a_cluster_without_days_is_refused() -> None:
    with pytest.raises(UserError, match="days is 0"):
        cluster_flops(8, 0.0, "h100")


def test_a_device_s_peak_is_known_by_its_whole_name() -> None:
    assert peak_of_device("NVIDIA H100 80GB HBM3") == accelerator("h100").bf16_flops
    assert peak_of_device("NVIDIA B200") == accelerator("b200").bf16_flops
    for other in ("NVIDIA H100 PCIe", "NVIDIA GH200 480GB", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "H100", ""):
        assert peak_of_device(other) is None
        assert price_of_device(other) is None
    assert price_of_device("NVIDIA B200") == accelerator("b200").usd_per_hour.estimate


def test_a_clusters_energy_and_carbon_follow_its_hours_and_grid() -> None:
    here, there = (cluster_estimate(1e24, 1024, "h100", region=name) for name in ("france", "poland"))
    assert here.energy_kwh == there.energy_kwh and here.energy_kwh is not None
    # At the meter an H100 takes more than its own 0.7 kW and less than the server's rated 1.3 with a poor site on top.
    assert 0.7 < here.energy_kwh.estimate / here.gpu_hours.estimate < 1.3
    assert here.tco2e is not None and there.tco2e is not None
    assert there.tco2e.estimate / here.tco2e.estimate == pytest.approx(662 / 56)
    assert here.thresholds == ("EU: general-purpose AI model",)
