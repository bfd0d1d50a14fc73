from __future__ import annotations

import datetime

import pytest

from scaling.cost.thresholds import crossed, thresholds


@pytest.mark.parametrize(
    ("flops", "names"),
    [
        (1e23, ()),
        (1.1e23, ("EU: general-purpose AI model",)),
        (3.8e25, ("EU: general-purpose AI model", "EU: systemic risk presumed")),
        (2e26, ("EU: general-purpose AI model", "EU: systemic risk presumed", "California: frontier model",
                "New York: frontier model")),
    ],
)  # fmt: skip
def test_a_run_crosses_what_it_goes_over_and_nothing_revoked(flops: float, names: tuple[str, ...]) -> None:
    assert tuple(row.name for row in crossed(flops)) == names


def test_a_threshold_knows_where_it_stands_on_a_day() -> None:
    known = {row.name: row for row in thresholds()}
    order, york = known["US: Executive Order 14110"], known["New York: frontier model"]
    assert order.standing(datetime.date(2024, 8, 1)) == "in force"
    assert order.standing(datetime.date(2025, 1, 20)) == "revoked 2025-01-20"
    assert york.standing(datetime.date(2026, 11, 30)) == "from 2027-01-01"
    assert york.standing(datetime.date(2027, 1, 1)) == "in force"
