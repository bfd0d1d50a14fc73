from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.allocation import LossSurface, inference_optimum, iso_loss, shrink
from scaling.errors import UserError
from scaling.fit import Fit

laws = st.tuples(
    st.floats(50, 5e3), st.floats(50, 5e3), st.floats(0.5, 3), st.floats(0.2, 0.7), st.floats(0.2, 0.7)
).map(lambda theta: LossSurface(np.array([theta]), 0.9))


def test_at_three_tenths_of_the_optimal_size_the_compute_doubles(hoffmann: LossSurface) -> None:
    """De Vries, "Go smol or go home" (2023): the critical model size is about 30%, at an overhead of 100%."""
    overhead = shrink(hoffmann, 1e23, 1 / 0.3).extra_share
    assert overhead is not None
    assert overhead.estimate == pytest.approx(1.0, abs=0.06)


@given(laws, st.floats(18, 25), st.floats(0.3, 5))
def test_the_overhead_is_a_function_of_the_exponents_alone(surface: LossSurface, log_c: float, factor: float) -> None:
    found = shrink(surface, 10**log_c, factor)
    _, _, _, alpha, beta = surface.theta_KP[0]
    room = 1 + beta / alpha * (1 - factor**alpha)
    assert (found.extra_share is None) == (room <= 0)
    if found.extra_share is not None and room > 1e-3:
        assert found.extra_share.estimate + 1 == pytest.approx(room ** (-1 / beta) / factor, rel=1e-6)
    assert found.largest_factor.estimate == pytest.approx((1 + alpha / beta) ** (1 / alpha))
    assert found.loss_excess.estimate >= -1e-12
    assert -1e-9 <= found.wasted_share.estimate < 1


def test_wasted_compute_is_what_the_optimum_of_that_loss_would_not_have_needed(lab_fit: Fit) -> None:
    found = shrink(lab_fit, 1e22, 4)
    surface = LossSurface.of(lab_fit)
    smaller = 1e22 * (1 - found.wasted_share.estimate)
    excess = float((surface.optimal_loss(smaller) - surface.optimal_loss(1e22))[0])
    assert excess == pytest.approx(found.loss_excess.estimate)


def test_intervals_hold_the_truth(lab_fit: Fit, lab_truth: np.ndarray) -> None:
    truth, found = shrink(LossSurface(lab_truth[None, :], 0.9), 1e23, 3), shrink(lab_fit, 1e23, 3)
    for name in ("params", "loss_excess", "wasted_share", "extra_share", "largest_factor"):
        interval, true = getattr(found, name), getattr(truth, name).estimate
        assert interval.low <= true <= interval.high


def test_too_small_a_model_never_gets_there_and_the_record_says_so(lab_fit: Fit) -> None:
    found = shrink(lab_fit, 1e23, 20)
    assert (found.equal_loss_tokens, found.extra_share) == (None, None)
    assert "No amount of data" in found.summary()
    with pytest.raises(UserError, match="shrink"):
        shrink(lab_fit, 1e23, 0)


def test_every_model_on_the_curve_has_its_loss_and_none_is_cheaper_than_the_optimum(lab_fit: Fit) -> None:
    surface, curve = LossSurface.of(lab_fit), iso_loss(lab_fit, flops=1e23, points=15)
    assert curve.loss == pytest.approx(float(surface.optimal_loss(1e23)[0]))
    for point in curve.points:
        assert float(surface.loss(point.params, point.tokens.estimate)[0]) == pytest.approx(curve.loss)
        assert point.extra_share.estimate >= -1e-9
        assert point.flops.estimate == pytest.approx(1e23 * (1 + point.extra_share.estimate))
    overheads = [point.extra_share.estimate for point in curve.points]
    cheapest = int(np.argmin(overheads))
    assert overheads[: cheapest + 1] == sorted(overheads[: cheapest + 1], reverse=True)
    assert len(curve.summary().splitlines()) == 16


def test_each_smaller_model_is_the_cheapest_for_the_tokens_it_is_said_to_serve(lab_fit: Fit) -> None:
    for point in iso_loss(lab_fit, flops=1e23).points:
        if point.serve_tokens is not None:
            found = inference_optimum(lab_fit, serve_tokens=point.serve_tokens, flops=1e23)
            assert found.params.estimate == pytest.approx(point.params, rel=1e-6)


def test_a_curve_of_a_given_loss_is_that_of_the_compute_that_reaches_it(lab_fit: Fit) -> None:
    loss = float(LossSurface.of(lab_fit).optimal_loss(1e22)[0])
    by_loss, by_flops = iso_loss(lab_fit, loss=loss), iso_loss(lab_fit, flops=1e22)
    assert [p.tokens.estimate for p in by_loss.points] == pytest.approx([p.tokens.estimate for p in by_flops.points])
    with pytest.raises(UserError, match="no lower than E"):
        iso_loss(lab_fit, loss=1.0)
    with pytest.raises(UserError, match="exactly one"):
        iso_loss(lab_fit)
