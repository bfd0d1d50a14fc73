"""What every law inherits: numeric curvature, an optimum by search, starts, and its place in the registry."""

from __future__ import annotations

import numpy as np
import pytest

from scaling import laws
from scaling.errors import UserError
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import Law, LossLaw

THETA = np.array([482.00572, 2085.43420, 1.81686, 0.34781, 0.36585])


def test_curvature_by_differences_is_chinchillas_formula() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-3, 3, size=(2, 9))
    free = np.stack([np.array([-0.5, -1.0, 0.6, 0.3, 0.4]), np.array([0.1, 0.2, 0.5, 0.5, 0.2])])
    psi = rng.standard_normal((2, 9))
    _, jacobian = CHINCHILLA.response_and_gradient(free, inputs)
    formula = CHINCHILLA.curvature(free, inputs, jacobian, psi)
    assert Law.curvature(CHINCHILLA, free, inputs, jacobian, psi) == pytest.approx(formula, abs=1e-5)


def test_the_optimum_by_search_is_chinchillas_closed_form() -> None:
    flops = np.array([1e15, 1e21, 1e26])
    for theta in (THETA, np.stack([THETA, THETA * 0.9])):
        for searched, closed in zip(
            LossLaw.optimum(CHINCHILLA, theta, flops), CHINCHILLA.optimum(theta, flops), strict=True
        ):
            assert searched == pytest.approx(closed, rel=1e-3)
    a, b = LossLaw.exponents(CHINCHILLA, THETA, 1e21)
    assert (float(a), float(b)) == pytest.approx(tuple(map(float, CHINCHILLA.exponents(THETA))), abs=1e-3)


def test_predict_through_the_searched_coordinates_is_the_formula() -> None:
    params, tokens = np.array([[1e8, 1e9], [1e10, 1e11]]), np.array([[1e10, 1e11], [1e12, 1e12]])
    for theta in (THETA, np.stack([THETA, THETA * 0.9])):
        through = Law.predict(CHINCHILLA, theta, params, tokens)
        assert through == pytest.approx(CHINCHILLA.predict(theta, params, tokens), rel=1e-12)


def test_a_law_is_found_by_name_and_an_unknown_one_is_a_clear_line() -> None:
    assert laws.get("chinchilla") is CHINCHILLA
    assert laws.get_loss_law("chinchilla") is CHINCHILLA
    with pytest.raises(UserError, match=r"law 'chinchila' is not known; choose one of: .*chinchilla"):
        laws.get("chinchila")
