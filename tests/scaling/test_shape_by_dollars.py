"""The shape of least dollars beside the shape of least compute: at one loss, within what is known."""

from __future__ import annotations

import pytest

from scaling import architectures, shape_by_dollars
from scaling.allocation.surface import LossSurface
from scaling.fit import Fit, ParametricFit
from scaling.limits import Limits
from scaling.recommend import recommend
from scaling.recommendation import Recommendation
from scaling.recommendation_page import page
from scaling.shape_by_dollars import RATIO, ShapesByDollars

from .conftest import counted_as

NARROW = 3e20
"""FLOPs of a model about 2,300 wide: accelerators reach less of their peak with it."""


def _found(made: Recommendation) -> ShapesByDollars:
    assert made.by_dollars is not None
    return made.by_dollars


@pytest.mark.parametrize("flops", [1e18, NARROW, 1e23])
@pytest.mark.parametrize("convention", ["6nd", "exact"])
def test_both_shapes_reach_one_loss_and_the_cheapest_costs_least(lab_fit: Fit, flops: float, convention: str) -> None:
    made = recommend(counted_as(lab_fit, flops_convention=convention), flops=flops)
    found, surface = _found(made), LossSurface.of(lab_fit)
    ours, other = found.compute_optimal, found.cheapest
    first, second = (float(surface.loss(one.params, one.tokens)[0]) for one in (ours, other))
    assert first == pytest.approx(second, rel=1e-9)
    assert made.shape == (other if found.taken else ours).shape and found.taken == found.settled
    assert other.usd <= ours.usd
    assert 1 - other.usd / ours.usd == pytest.approx(found.saved_share.estimate, abs=1e-9)
    assert (found.why_same is None) == (other.shape != ours.shape)
    for one in (ours, other):
        per_token = architectures.get("llama").training_flops_per_token(one.shape)
        counted = per_token if convention == "exact" else 6 * one.params
        assert one.flops == pytest.approx(counted * one.tokens)


def test_the_cheapest_keeps_to_the_flat_region_the_dials_ratio_and_the_layout(lab_fit: Fit) -> None:
    made = recommend(lab_fit, flops=NARROW, gpus=64)
    found, flat = _found(made), made.flat_region
    assert flat is not None and made.cluster is not None and made.cluster.plan is not None
    other = found.cheapest.shape
    assert other.width > made.shape.width and other.width % 128 == 0
    assert flat[0] <= found.cheapest.params <= flat[1]
    dial = architectures.llama.transformer_aspect(found.cheapest.params)
    assert 1 / RATIO <= other.width / other.layers / dial <= RATIO
    assert other.heads % made.cluster.plan.tensor == 0


def test_where_the_mfu_does_not_move_it_is_one_shape_and_the_page_says_why(lab_fit: Fit) -> None:
    wide = recommend(lab_fit, flops=1e24)
    given = recommend(lab_fit, flops=NARROW, mfu=0.4)
    processor = recommend(lab_fit, flops=1e18, accelerator="epyc")
    for made, why in ((wide, "not known to reach more"), (given, "MFU that was given"), (processor, "a processor")):
        found = _found(made)
        assert found.cheapest == found.compute_optimal and not found.taken
        assert found.why_same is not None and why in found.why_same
        assert found.why_same in " ".join(page(made).split())


def test_what_the_ratio_may_do_to_the_loss_is_worth_more_than_the_saving(lab_fit: Fit) -> None:
    made = recommend(lab_fit, flops=NARROW)
    found = _found(made)
    assert 0.005 < found.saved_share.estimate < found.flops_open
    assert not found.settled and not found.taken
    assert "not settled, so the compute-optimal one stands" in " ".join(page(made).split())


def test_the_cheapest_is_taken_where_it_is_asked_for(lab_fit: Fit) -> None:
    plain, asked = (recommend(lab_fit, flops=NARROW, pick=pick) for pick in ("optimum", "dollars"))
    found = _found(asked)
    assert found.taken and asked.shape == found.cheapest.shape == _found(plain).cheapest.shape
    assert asked.flops == found.cheapest.flops
    assert asked.cluster is not None and plain.cluster is not None
    assert asked.cluster.usd.estimate == pytest.approx(found.cheapest.usd, rel=1e-6)
    assert asked.cluster.usd.estimate < plain.cluster.usd.estimate
    assert asked.loss is not None and plain.loss is not None
    assert asked.loss.estimate == pytest.approx(plain.loss.estimate, rel=2e-3)
    assert any("fewest dollars" in reason for reason in asked.reasons)
    assert "taken as asked" in page(asked)


def test_it_would_be_taken_unasked_if_the_ratio_were_known_to_change_nothing(
    lab_fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_by_dollars, "_KAPLAN_LOSS", 0.0)
    made = recommend(lab_fit, flops=NARROW)
    found = _found(made)
    assert found.settled and found.taken and made.shape == found.cheapest.shape
    assert "settled: the cheapest is what is recommended" in page(made)
    # Under 1,536 one accelerator alone was measured, and nothing is settled by it.
    assert not _found(recommend(lab_fit, flops=1e18)).settled


def test_a_size_that_a_limit_holds_is_not_exceeded_for_dollars(lab_fit: Fit) -> None:
    limits = Limits(max_params=1.2e9)
    held = recommend(lab_fit, flops=NARROW, limits=limits)
    asked = recommend(lab_fit, flops=NARROW, limits=limits, pick="dollars")
    assert architectures.total_params(asked.shape) <= architectures.total_params(held.shape)
    assert asked.shape.width > held.shape.width


def test_without_a_law_there_are_no_shapes_at_one_loss(lab_fit: Fit) -> None:
    refused = ParametricFit(status="refused", reason="every run has 20 tokens a parameter")
    made = recommend(lab_fit.model_copy(update={"parametric": refused}), flops=NARROW)
    assert made.by_dollars is None and "by dollars" not in page(made)
