"""Compute from power, energy and carbon, and what they hold down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.cluster_wanted import ClusterWanted
from scaling.cost.energy import region
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.limits import Limits
from scaling.quantity import format_power
from scaling.recommend import recommend
from scaling.recommendation import Recommendation
from scaling.recommendation_page import page
from scaling.target_flops import bought

H100_SITE_KW = 1.275 * 1.2
"""An eighth of a DGX H100's 10.2 kW, and a PUE of 1.2."""


def _energy(made: Recommendation) -> float:
    assert made.cluster is not None and made.cluster.energy_kwh is not None
    return made.cluster.energy_kwh.estimate


@pytest.mark.parametrize("kwh", [30.0, 2e3, 7.78e5])
def test_the_run_takes_the_energy_that_was_given(lab_fit: Fit, kwh: float) -> None:
    made = recommend(lab_fit, kwh=kwh)
    assert _energy(made) == pytest.approx(kwh, rel=0.03)
    target = made.target
    assert target is not None and target.interval is not None and "at the meter" in target.asked
    low, high = target.interval.low, target.interval.high
    assert low is not None and high is not None and low < made.flops < high


def test_carbon_buys_compute_by_the_regions_grid(lab_fit: Fit) -> None:
    made = {name: recommend(lab_fit, tco2e=50, region=name) for name in ("france", "poland", "240")}
    for name, one in made.items():
        assert one.cluster is not None and one.cluster.tco2e is not None
        assert one.cluster.tco2e.estimate == pytest.approx(50, rel=0.01)
        assert one.cluster.region == region(name).name and f"the grid of {region(name).name}" in page(one)
    cleaner = region("poland").g_per_kwh / region("france").g_per_kwh
    assert made["france"].flops / made["poland"].flops == pytest.approx(cleaner, rel=0.02)


def test_power_says_how_many_devices_and_holds_a_number_that_is_larger(lab_fit: Fit) -> None:
    fed = int(2000 / H100_SITE_KW) // 8 * 8
    limits = Limits(power_cap_kw=2000)
    alone = recommend(lab_fit, days=27, limits=limits)
    assert alone.cluster is not None and alone.cluster.gpus == fed
    assert alone.flops == pytest.approx(recommend(lab_fit, gpus=fed, days=27).flops)
    held = recommend(lab_fit, gpus=4096, days=27, limits=limits)
    assert held.cluster is not None and held.cluster.gpus == fed and held.flops == pytest.approx(alone.flops)
    assert held.target is not None and f"held to {fed:,}" in held.target.held[0]
    assert held.target.held[0] in " ".join(page(held).split())
    within = recommend(lab_fit, gpus=64, days=27, limits=limits)
    assert within.cluster is not None and within.cluster.gpus == 64
    assert within.target is not None and within.target.held == ()


def test_a_cap_on_power_slows_the_cluster_that_nobody_named(lab_fit: Fit) -> None:
    capped = recommend(lab_fit, flops=1e24, limits=Limits(power_cap_kw=300)).cluster
    assert capped is not None and capped.site_kw is not None
    assert capped.gpus == 128 and capped.site_kw <= 300 and capped.days.estimate > 30
    assert "300 kW feed" in capped.source


@pytest.mark.parametrize("limit", [{"max_kwh": 1e5}, {"max_tco2e": 20.0}])
def test_a_limit_on_energy_or_carbon_holds_the_compute(lab_fit: Fit, limit: dict[str, float]) -> None:
    free = recommend(lab_fit, usd=1e6)
    held = recommend(lab_fit, usd=1e6, limits=Limits(**limit))
    assert held.flops < free.flops and held.target is not None and "is held from" in held.target.held[0]
    [(name, amount)] = limit.items()
    assert held.flops == pytest.approx(recommend(lab_fit, **{name.removeprefix("max_"): amount}).flops)  # type: ignore[arg-type]
    roomy = recommend(lab_fit, usd=1e6, limits=Limits(**{name: 1e3 * amount}))
    assert roomy.flops == free.flops and roomy.target is not None and roomy.target.held == ()


def test_a_served_model_over_the_limit_is_said(lab_fit: Fit) -> None:
    limits = Limits(max_kwh=1e5, serve_tokens=1e13)
    picked = recommend(lab_fit, flops=1e24, limits=limits, pick="serving")
    assert _energy(picked) > 1.02e5 and any("more than the 100 MWh" in said for said in picked.warnings)
    optimum = recommend(lab_fit, flops=1e24, limits=limits)
    assert not any("that were set" in said for said in optimum.warnings)


@pytest.mark.parametrize(("gpus", "days"), [(1, 1.0), (8, 2.0), (64, 7.0)])
def test_narrow_models_reach_less_of_the_peak_and_still_take_the_days_asked_for(
    lab_fit: Fit, gpus: int, days: float
) -> None:
    made = recommend(lab_fit, gpus=gpus, days=days)
    assert made.cluster is not None
    assert made.cluster.days.estimate == pytest.approx(days, rel=0.03)
    if made.shape.width < 2048:
        assert made.cluster.mfu.estimate < 0.4 * 0.93


@settings(max_examples=40)
@given(
    unit=st.sampled_from(["usd", "kwh", "tco2e"]),
    amount=st.floats(0, 7).map(lambda log: 10**log),
    gpus=st.one_of(st.none(), st.integers(1, 4096)),
    name=st.sampled_from(["h100", "a100", "gb200", "epyc"]),
)
def test_what_was_bought_costs_the_amount(unit: Any, amount: float, gpus: int | None, name: str) -> None:
    wanted = ClusterWanted(accelerator=name, gpus=gpus)
    flops = bought(unit, amount, wanted)
    cluster = wanted.estimate(flops.estimate)
    cost = {"usd": cluster.usd, "kwh": cluster.energy_kwh, "tco2e": cluster.tco2e}[unit]
    assert cost is not None and cost.estimate == pytest.approx(amount, rel=1e-3)
    assert flops.low is not None and flops.high is not None and flops.low <= flops.estimate <= flops.high


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ({"kwh": -5.0}, "kwh is -5"),
        ({"tco2e": float("nan")}, "tco2e is nan"),
        ({"kwh": 1e5, "tco2e": 5.0}, "exactly one"),
        ({"tco2e": 5.0, "region": "frannce"}, "Did you mean france"),
        ({"tco2e": 5.0, "region": "0"}, "grid emits nothing"),
        ({"days": 3.0, "limits": Limits(power_cap_kw=0.5)}, "power_cap_kw is 0.5: one H100"),
        ({"flops": 1e22, "limits": Limits(power_cap_kw=0.5)}, "takes 1.53 kW"),
        ({"flops": 1e22, "limits": Limits(max_tco2e=1.0), "region": "0"}, "grid emits nothing"),
    ],
)
def test_power_energy_and_carbon_that_cannot_be_are_one_line(lab_fit: Fit, target: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        recommend(lab_fit, **target)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["power_cap_kw", "max_kwh", "max_tco2e"])
def test_limits_are_more_than_nothing(name: str) -> None:
    for value in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: value})


def test_power_is_written_as_people_write_it() -> None:
    assert [format_power(kw) for kw in (1.53, 1566.72, 25_067)] == ["1.53 kW", "1,570 kW", "25.1 MW"]
