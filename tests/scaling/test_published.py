from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.laws.chinchilla import CHINCHILLA
from scaling.published import kaplan_total, optimum, published_optima

CHINCHILLA_FLOPS = 5.76e23
"""The compute of Chinchilla and Gopher (2203.15556, section 4)."""


def test_the_unrounded_constants_give_58_9_tokens_a_parameter_and_the_rounded_92_6() -> None:
    assert optimum("hoffmann", CHINCHILLA_FLOPS).tokens_per_param == pytest.approx(58.9, abs=0.05)
    params, tokens = CHINCHILLA.optimum((406.4, 410.7, 1.69, 0.34, 0.28), CHINCHILLA_FLOPS)
    assert float(tokens / params) == pytest.approx(92.6, abs=0.05)


def test_besiroglus_refit_gives_18_4_tokens_a_parameter() -> None:
    assert optimum("besiroglu", CHINCHILLA_FLOPS).tokens_per_param == pytest.approx(18.4, abs=0.05)


def test_the_rule_of_twenty_gives_chinchilla_itself() -> None:
    """70B parameters on 1.4T tokens (2203.15556)."""
    found = optimum("twenty", CHINCHILLA_FLOPS)
    assert found.params == pytest.approx(70e9, rel=0.02)
    assert found.tokens == pytest.approx(1.4e12, rel=0.02)


def test_kaplan_makes_models_too_large_and_tokens_too_few() -> None:
    found = optimum("kaplan", CHINCHILLA_FLOPS)
    nonembedding = 1.3e9 * (CHINCHILLA_FLOPS / 8.64e19) ** 0.73
    assert found.params == pytest.approx(kaplan_total(nonembedding))
    assert found.tokens_per_param < 1
    assert found.params > 5 * optimum("twenty", CHINCHILLA_FLOPS).params


def test_embeddings_matter_for_small_models_and_vanish_in_large_ones() -> None:
    """Pearce & Song 2406.12907: N_total = N + 47491 N^(1/3), so that N = 1e6 are 5.7e6 in all."""
    assert kaplan_total(1e6) == pytest.approx(1e6 + 47_491 * 100)
    assert kaplan_total(1e12) == pytest.approx(1e12, rel=1e-3)


@given(st.floats(min_value=1e15, max_value=1e28))
def test_every_law_spends_the_whole_compute(flops: float) -> None:
    laws = published_optima(flops)
    assert [law.key for law in laws] == ["hoffmann", "besiroglu", "kaplan", "twenty"]
    assert [6 * law.params * law.tokens for law in laws] == pytest.approx([flops] * 4)
    assert all(law.citation for law in laws)


def test_the_chinchilla_optima_are_the_lowest_loss_of_their_own_law() -> None:
    theta = (482.01, 2085.43, 1.8172, 0.3478, 0.3658)
    sizes = np.geomspace(1e9, 1e12, 20_001)
    best = sizes[np.argmin(CHINCHILLA.predict(theta, sizes, CHINCHILLA_FLOPS / 6 / sizes))]
    assert optimum("besiroglu", CHINCHILLA_FLOPS).params == pytest.approx(float(best), rel=1e-3)


def test_an_unknown_law_is_a_fault_of_the_caller() -> None:
    with pytest.raises(KeyError, match="gpt-5"):
        optimum("gpt-5", 1e21)
