from __future__ import annotations

import pytest

from scaling.cost.energy import carbon, energy, rated_site_watts, region, regions
from scaling.errors import UserError
from scaling.record import Interval

HOURS = Interval(estimate=1000.0, low=900.0, high=1200.0)


def test_a_given_draw_and_site_leave_only_the_hours_range() -> None:
    kwh = energy(HOURS, 1275, pue=1.0, drawn_watts=700)
    assert kwh == Interval(estimate=700, low=630, high=840)


def test_the_default_draw_is_what_was_measured_of_the_servers_rating() -> None:
    kwh = energy(Interval(estimate=1, low=1, high=1), 1275, pue=1.0)
    # 8 x H100: 76% of 10.2 kW on average and at most 8.4 kW (2506.14551, 2412.08602).
    assert kwh.estimate * 8 == pytest.approx(0.76 * 10.2)
    assert kwh.high is not None and kwh.high * 8 == pytest.approx(8.4, abs=0.1)
    assert rated_site_watts(1275, 1.1) == pytest.approx(1402.5)


def test_carbon_is_by_the_grid_named_or_given_in_grams() -> None:
    kwh = energy(HOURS, 1275)
    assert carbon(kwh, region("us-east-1")).estimate == pytest.approx(kwh.estimate * 245e-6)
    assert carbon(kwh, region("240")).estimate == pytest.approx(kwh.estimate * 240e-6)
    assert region("UNITED KINGDOM").name == region("gb").name == "uk"


def test_every_grid_has_a_year_a_source_and_a_believable_intensity() -> None:
    names = [name for one in regions() for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))
    for one in regions():
        assert 10 < one.g_per_kwh < 1000 and one.year in (2022, 2023) and len(one.source) > 10


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: region("frence"), "'frence' is not in the table. Did you mean france"),
        (lambda: region("-5"), "region is -5"),
        (lambda: energy(HOURS, 1275, pue=0.9), "pue is 0.9"),
        (lambda: energy(HOURS, 1275, drawn_watts=0), "watts is 0"),
    ],
)
def test_impossible_grids_and_sites_are_named(wrong: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        wrong()  # type: ignore[operator]
