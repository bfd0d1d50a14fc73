from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.allocation import LossSurface, inference_optimum
from scaling.carry_over import Setting, bits_per_byte, carry_over, nats_per_token
from scaling.errors import UserError
from scaling.fit import Fit

OLD = Setting(corpus="web", context=2048, tokenizer="bpe-32k", bytes_per_token=4.3)
NEW = Setting(corpus="web", context=2048, tokenizer="bpe-8k", bytes_per_token=3.6)


@given(st.floats(0.5, 12), st.floats(1, 8))
def test_bits_a_byte_and_nats_a_token_are_each_others_inverse(loss: float, bytes_per_token: float) -> None:
    assert nats_per_token(bits_per_byte(loss, bytes_per_token), bytes_per_token) == pytest.approx(loss)
    assert bits_per_byte(math.log(2) * bytes_per_token, bytes_per_token) == pytest.approx(1)


@given(st.floats(6, 12), st.floats(8, 13))
def test_equal_models_on_equal_bytes_reach_equal_bits_a_byte(log_n: float, log_bytes: float) -> None:
    surface = LossSurface(np.array([[482.01, 2085.43, 1.81686, 0.34781, 0.36585]]), 0.9)
    carried = carry_over(surface, OLD, NEW)
    params, size = 10**log_n, 10**log_bytes
    before = bits_per_byte(float(surface.loss(params, size / OLD.bytes_per_token)[0]), OLD.bytes_per_token)
    assert carried.bits_per_byte(params, size / NEW.bytes_per_token).estimate == pytest.approx(before)
    loss = carried.loss(params, size / NEW.bytes_per_token).estimate
    assert bits_per_byte(loss, NEW.bytes_per_token) == pytest.approx(before)


def test_there_and_back_is_where_it_began(lab_fit: Fit) -> None:
    there = carry_over(lab_fit, OLD, NEW)
    back = carry_over(there.surface, NEW, OLD)
    assert back.surface.theta_KP == pytest.approx(LossSurface.of(lab_fit).theta_KP)


def test_a_token_of_fewer_bytes_is_cheaper_text_and_so_calls_for_smaller_models_on_more_tokens(lab_fit: Fit) -> None:
    """The same FLOPs see fewer bytes at fewer bytes a token."""
    old, new = LossSurface.of(lab_fit), carry_over(lab_fit, OLD, NEW).surface
    (n_old, d_old), (n_new, d_new) = old.optimum(1e22), new.optimum(1e22)
    assert n_new[0] < n_old[0]
    assert d_new[0] * NEW.bytes_per_token < d_old[0] * OLD.bytes_per_token
    assert inference_optimum(new, serve_tokens=1e13, flops=1e22).params.estimate < n_new[0]


def test_the_assumption_is_said(lab_fit: Fit) -> None:
    assert "do not depend on the tokenizer" in carry_over(lab_fit, OLD, NEW).summary()
    assert carry_over(lab_fit, OLD, OLD).assumptions == ()


@pytest.mark.parametrize(
    ("change", "reason"), [({"corpus": "code"}, "another entropy"), ({"context": 8192}, "another amount of text")]
)
def test_another_corpus_or_context_is_refused_without_runs_of_it(
    lab_fit: Fit, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as refused:
        carry_over(lab_fit, OLD, NEW.model_copy(update=change))
    assert "train 3 or more runs" in str(refused.value)


def _runs(fit: Fit, factor: float, noise: float) -> list[tuple[float, float, float]]:
    """Runs of the new setting whose losses are ``factor`` times the carried law's."""
    surface, rng = carry_over(fit, OLD, NEW).surface, np.random.default_rng(0)
    sizes = [(1e8, 2e9), (2e8, 4e9), (5e8, 1e10), (1e9, 2e10), (2e9, 4e10)]
    return [(n, d, float(surface.loss(n, d)[0]) * factor * math.exp(noise * rng.standard_normal())) for n, d in sizes]


def test_runs_of_the_new_setting_decide(lab_fit: Fit) -> None:
    wanted = NEW.model_copy(update={"context": 8192})
    carried = carry_over(lab_fit, OLD, wanted, _runs(lab_fit, 1.0, 0.003))
    assert any("as if the law held there" in said for said in carried.assumptions)
    with pytest.raises(UserError, match="does not hold there: fit these runs by themselves"):
        carry_over(lab_fit, OLD, wanted, _runs(lab_fit, 0.95, 0.003))
    with pytest.raises(UserError, match="too uncertain to decide"):
        carry_over(lab_fit, OLD, wanted, _runs(lab_fit, 1.0, 0.05))
    with pytest.raises(UserError, match="does not hold there"):
        carry_over(lab_fit, OLD, NEW, _runs(lab_fit, 1.04, 0.003))


def test_runs_that_can_not_be_are_refused(lab_fit: Fit) -> None:
    with pytest.raises(UserError, match="runs: loss is nan"):
        carry_over(lab_fit, OLD, NEW, [(1e8, 1e9, math.nan)] * 3)
