from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.allocation import allocate, flat_region
from scaling.errors import UserError
from scaling.fit import Fit, IsoflopFit, ParametricFit
from scaling.laws.chinchilla import CHINCHILLA


def _without(fit: Fit, *parts: str) -> Fit:
    refused = {
        "parametric": ParametricFit(status="refused", reason="every run has 20 tokens a parameter"),
        "isoflop": IsoflopFit(status="refused", reason="no budget has four sizes"),
    }
    return fit.model_copy(update={part: refused[part] for part in parts})


@pytest.mark.parametrize("decades", [0.0, 1.0, 2.0, 3.0])
def test_the_interval_of_the_optimum_holds_the_truth(lab_fit: Fit, lab_truth: np.ndarray, decades: float) -> None:
    flops = lab_fit.fitted_range.flops[1] * 10**decades
    found = allocate(lab_fit, flops)
    params, tokens = (float(value) for value in CHINCHILLA.optimum(lab_truth, flops))
    assert found.estimator == "parametric"
    for interval, truth in ((found.params, params), (found.tokens, tokens), (found.tokens_per_param, tokens / params)):
        assert interval.low is not None and interval.high is not None
        assert interval.low <= truth <= interval.high
        assert interval.low <= interval.estimate <= interval.high


@settings(max_examples=20)
@given(log_flops=st.floats(min_value=17.5, max_value=26))
@pytest.mark.parametrize("estimator", ["parametric", "isoflop"])
def test_the_optimum_spends_the_whole_compute(lab_fit: Fit, estimator: str, log_flops: float) -> None:
    flops = 10**log_flops
    found = allocate(lab_fit, flops, "parametric" if estimator == "parametric" else "isoflop")
    assert 6 * found.params.estimate * found.tokens.estimate == pytest.approx(flops)
    assert found.tokens_per_param.estimate == pytest.approx(found.tokens.estimate / found.params.estimate)
    assert found.params.high is not None and found.tokens.low is not None
    assert 6 * found.params.high * found.tokens.low == pytest.approx(flops)


def test_intervals_widen_with_the_distance_from_the_runs(lab_fit: Fit) -> None:
    def width(flops: float) -> float:
        params = allocate(lab_fit, flops).params
        assert params.low is not None and params.high is not None
        return params.high / params.low

    largest = lab_fit.fitted_range.flops[1]
    assert width(largest) < width(1e2 * largest) < width(1e4 * largest)


def test_the_iso_flop_lines_answer_where_there_is_no_law(lab_fit: Fit) -> None:
    found = allocate(_without(lab_fit, "parametric"), 1e21)
    assert found.estimator == "isoflop"
    assert found.loss is None
    assert found.params.estimate == pytest.approx(allocate(lab_fit, 1e21).params.estimate, rel=0.3)


def test_a_fit_refused_twice_gives_both_reasons(lab_fit: Fit) -> None:
    with pytest.raises(UserError, match=r"20 tokens a parameter.*four sizes"):
        allocate(_without(lab_fit, "parametric", "isoflop"), 1e21)
    with pytest.raises(UserError, match="four sizes"):
        allocate(_without(lab_fit, "isoflop"), 1e21, "isoflop")


def test_a_fit_without_draws_has_an_open_interval_not_a_closed_one(lab_fit: Fit) -> None:
    blunt = lab_fit.model_copy(
        update={
            "parametric": lab_fit.parametric.model_copy(update={"draws": ()}),
            "isoflop": lab_fit.isoflop.model_copy(update={"draws": ()}),
        }
    )
    for found in (allocate(blunt, 1e21), allocate(blunt, 1e21, "isoflop")):
        assert (found.params.low, found.params.high, found.tokens.low) == (None, None, None)


def test_the_flat_region_is_where_loss_is_within_its_share(lab_fit: Fit) -> None:
    flops, share = 1e21, 0.003
    region = flat_region(lab_fit, flops, share)
    assert region is not None
    theta = [lab_fit.parametric.parameters[name].estimate for name in CHINCHILLA.NAMES]
    best, tokens = CHINCHILLA.optimum(theta, flops)
    lowest = float(CHINCHILLA.predict(theta, best, tokens))
    for edge in region:
        assert float(CHINCHILLA.predict(theta, edge, flops / 6 / edge)) / lowest - 1 == pytest.approx(share, rel=0.05)
    assert region[0] < float(best) < region[1]
    assert flat_region(_without(lab_fit, "parametric"), flops) is None
