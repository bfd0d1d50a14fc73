"""Constants held fixed: what the estimate, its draws and its centring make of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.errors import UserError
from scaling.fits.estimate import draw, estimate
from scaling.laws.chinchilla import CHINCHILLA

Study = tuple[np.ndarray, pd.DataFrame]


def _data(study: Study) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    params, tokens, loss = (study[1][name].to_numpy() for name in ("params", "tokens", "loss"))
    return (params, tokens), loss


def test_a_fixed_constant_stays_and_the_others_do_their_best(laptop_study: Study) -> None:
    inputs, loss = _data(laptop_study)
    free = estimate(CHINCHILLA, inputs, loss, 1e-3)
    same = estimate(CHINCHILLA, inputs, loss, 1e-3, fixed={"E": float(free.theta[2])})
    other = estimate(CHINCHILLA, inputs, loss, 1e-3, fixed={"E": 0.9 * float(free.theta[2])})
    assert same.objective == pytest.approx(free.objective, rel=1e-6)
    assert same.theta == pytest.approx(free.theta, rel=1e-2)
    assert other.theta[2] == pytest.approx(0.9 * free.theta[2], rel=1e-12)
    assert other.objective > free.objective
    assert other.unknowns == 4 and free.unknowns == 5
    draws = draw(other, inputs, loss, 1e-3, draws=20, rng=np.random.default_rng(0))
    assert draws[:, 2] == pytest.approx(other.theta[2], rel=1e-12)
    assert np.ptp(draws[:, 3]) > 0


def test_constants_are_fixed_at_their_own_value_not_at_that_of_centred_inputs(laptop_study: Study) -> None:
    """A and α fixed at the truth of noiseless runs: the other three follow."""
    theta, runs = laptop_study
    inputs, _ = _data(laptop_study)
    loss = CHINCHILLA.predict(theta, runs["params"], runs["tokens"])
    found = estimate(CHINCHILLA, inputs, loss, 1e-3, fixed={"A": float(theta[0]), "alpha": float(theta[3])})
    assert found.theta == pytest.approx(theta, rel=1e-4)
    assert found.at_bound == ()


def test_a_scale_without_its_exponent_cannot_be_held(laptop_study: Study) -> None:
    inputs, loss = _data(laptop_study)
    with pytest.raises(UserError, match=r"A of chinchilla can't be held alone.*\(B, E, alpha, beta\)"):
        estimate(CHINCHILLA, inputs, loss, 1e-3, fixed={"A": 400.0})


def test_an_irreducible_loss_of_zero_is_a_term_that_is_not_there(laptop_study: Study) -> None:
    inputs, loss = _data(laptop_study)
    found = estimate(CHINCHILLA, inputs, loss, 1e-3, fixed={"E": 0.0})
    assert found.theta[2] == 0.0
    assert np.isfinite(found.objective) and np.isfinite(found.theta).all()
    draws = draw(found, inputs, loss, 1e-3, draws=20, rng=np.random.default_rng(0))
    assert np.isfinite(draws).all() and not draws[:, 2].any()
