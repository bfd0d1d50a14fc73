from __future__ import annotations

import numpy as np
import pytest

from scaling.allocation import LossSurface, compare
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit
from scaling.hardware import cluster_estimate
from scaling.published import chinchilla_constants, optimal_params, published_optima

from ..conftest import counted_as


def test_a_law_that_is_true_costs_those_who_follow_another(lab_fit: Fit) -> None:
    found = compare({"lab": lab_fit}, 1e23)
    names = [placement.name for placement in found.placements]
    assert names[:2] == ["lab, law", "lab, iso-FLOP"]
    assert [6 * p.params * p.tokens for p in found.placements] == pytest.approx([1e23] * len(names))
    # Three laws have a loss: each is followed by every other.
    assert len(found.costs) == 3 * (len(names) - 1)
    assert {cost.true for cost in found.costs} == {
        "lab, law",
        "Chinchilla (Hoffmann 2022)",
        "Chinchilla refitted (Besiroglu 2024)",
    }
    for cost in found.costs:
        assert cost.loss_excess.estimate >= 0
        assert 0 <= cost.wasted_share.estimate < 1


def test_the_costs_are_those_of_their_definition() -> None:
    """Kaplan's size where Besiroglu's law is true: both kinds of excess compute, by hand."""
    flops = 1e23
    constants = chinchilla_constants("besiroglu")
    assert constants is not None
    truth = LossSurface(constants[None, :], 0.9)
    cost = next(c for c in compare({}, flops).costs if c.follows.startswith("Kaplan") and "Besiroglu" in c.true)
    params = float(optimal_params("kaplan", flops))
    loss = float(truth.loss(params, flops / 6 / params)[0])
    assert cost.loss.estimate == pytest.approx(loss)
    cheaper = flops - cost.wasted_flops.estimate
    assert float(truth.optimal_loss(cheaper)[0]) == pytest.approx(loss)
    assert cost.make_up_flops is not None and cost.make_up_usd is not None
    more = flops + cost.make_up_flops.estimate
    larger = float(optimal_params("kaplan", more))
    assert float(truth.loss(larger, more / 6 / larger)[0]) == pytest.approx(float(truth.optimal_loss(flops)[0]))
    price = cluster_estimate(cost.make_up_flops.estimate, 1024, "h100").usd
    assert (cost.make_up_usd.estimate, cost.make_up_usd.low) == pytest.approx((price.estimate, price.low))


def test_dollars_follow_the_price(lab_fit: Fit) -> None:
    cheap, dear = (compare({"lab": lab_fit}, 1e23, price=price) for price in (1.0, 3.0))
    assert dear.usd.estimate == pytest.approx(3 * cheap.usd.estimate)
    assert "to make up" in dear.summary()


def test_a_fit_with_lines_alone_is_followed_but_never_taken_for_true(lab_fit: Fit) -> None:
    refused = ParametricFit(status="refused", reason="every run has 20 tokens a parameter")
    found = compare({"lines": lab_fit.model_copy(update={"parametric": refused})}, 1e22)
    assert "lines, iso-FLOP" in [placement.name for placement in found.placements]
    assert not any(cost.true.startswith("lines") for cost in found.costs)


def test_what_can_not_be_compared_is_refused(lab_fit: Fit, laptop_fit: Fit) -> None:
    other = counted_as(laptop_fit, params_convention="nonembedding")
    with pytest.raises(UserError, match="count parameters differently"):
        compare({"a": lab_fit, "b": other}, 1e22)
    with pytest.raises(UserError, match="--beside"):
        compare({}, 1e22, published=False)
    nothing = IsoflopFit(status="refused", reason="no budget has four sizes")
    alone = other.model_copy(update={"isoflop": nothing})
    with pytest.raises(UserError, match="--beside"):
        compare({"b": alone}, 1e22)  # published laws count all parameters, this fit does not


@pytest.mark.parametrize("key", ["hoffmann", "besiroglu", "kaplan", "twenty"])
def test_a_published_rule_over_many_budgets_is_its_optimum_at_each(key: str) -> None:
    budgets = np.geomspace(1e18, 1e26, 5)
    expected = [next(o.params for o in published_optima(c) if o.key == key) for c in budgets]
    assert optimal_params(key, budgets) == pytest.approx(expected)
