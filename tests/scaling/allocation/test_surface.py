from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.allocation import LossSurface
from scaling.errors import UserError
from scaling.fit import DriftFit, Fit, ParametricFit
from scaling.laws.chinchilla import CHINCHILLA

laws = st.tuples(
    st.floats(10, 1e4), st.floats(10, 1e4), st.floats(0.3, 4), st.floats(0.15, 0.9), st.floats(0.15, 0.9)
).map(lambda theta: LossSurface(np.array([theta]), 0.9))


@given(laws, st.floats(15, 26))
def test_the_optimum_is_the_laws_own_and_nothing_cheaper_reaches_its_loss(surface: LossSurface, log_c: float) -> None:
    flops = 10**log_c
    params, tokens = surface.optimum(flops)
    expected = CHINCHILLA.optimum(surface.theta_KP, flops)
    assert [params[0], tokens[0]] == pytest.approx([float(value[0]) for value in expected])
    again = surface.cheapest(surface.optimal_loss(flops))
    assert [float(value[0]) for value in again] == pytest.approx([params[0], tokens[0]], rel=1e-6)


@given(laws, st.floats(15, 26), st.floats(-1, 1))
def test_tokens_for_a_loss_reach_it(surface: LossSurface, log_c: float, off: float) -> None:
    params, tokens = surface.optimum(10**log_c)
    size = params * math.exp(off)
    aim = surface.loss(size, tokens)
    assert float(surface.tokens_for(aim, size)[0]) == pytest.approx(float(tokens[0]), rel=1e-6)
    assert surface.tokens_for(surface.theta_KP[:, 2], size)[0] == np.inf


@given(laws, st.floats(15, 26))
def test_the_marginal_loss_is_the_slope_of_the_frontier(surface: LossSurface, log_c: float) -> None:
    flops, step = 10**log_c, 1e-4
    rise = surface.optimal_loss(flops * (1 - step)) - surface.optimal_loss(flops * (1 + step))
    slope = float(rise[0]) / (2 * step * flops)
    assert slope == pytest.approx(float(surface.marginal_loss(flops)[0]), rel=1e-3)


def test_an_interval_that_reaches_where_there_is_no_answer_is_open() -> None:
    surface = LossSurface(np.tile([406.4, 410.7, 1.69, 0.34, 0.28], (21, 1)), 0.9)
    values = np.concatenate(([2.0], np.linspace(1, 3, 17), [np.inf] * 3))
    found = surface.interval(values)
    assert (found.low, found.high) == (pytest.approx(1.125), None)
    closed = surface.interval(np.linspace(1, 3, 21))
    assert closed.low is not None and closed.high is not None
    assert closed.low <= closed.estimate <= closed.high


def test_a_law_that_can_not_be_used_away_from_its_runs_is_refused_with_the_reason(lab_fit: Fit) -> None:
    assert LossSurface.refusal(lab_fit) is None
    refused = ParametricFit(status="refused", reason="every run has 20 tokens a parameter")
    with pytest.raises(UserError, match="every run has 20 tokens"):
        LossSurface.of(lab_fit.model_copy(update={"parametric": refused}))
    other = lab_fit.parametric.model_copy(update={"law": "kaplan"})
    with pytest.raises(UserError, match=r"--law chinchilla"):
        LossSurface.of(lab_fit.model_copy(update={"parametric": other}))
    drift = DriftFit(status="ok", irreducible=(0.5, 1.2))
    with pytest.raises(UserError, match="levels off"):
        LossSurface.of(lab_fit.model_copy(update={"drift": drift}))
