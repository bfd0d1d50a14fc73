"""Fits with a known truth, at a lab's scale and at a laptop's, for what follows a fit."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.batch_rule import BatchRule
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.hyperparameters import LearningRateLaw
from scaling.laws.power_lines import WeightDecay
from scaling.record import Interval
from scaling.simulation import IsoflopDesign, simulate_isoflop
from scaling.study_context import StudyContext

BESIROGLU = np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585])
"""A, B, E, alpha, beta of 2404.10102."""


def counted_as(fit: Fit, **conventions: str) -> Fit:
    """The same numbers said to be counted under other conventions (params_convention, flops_convention)."""
    return fit.model_copy(update={"observations": fit.observations.model_copy(update=conventions)})


@pytest.fixture(scope="session")
def lab_truth() -> np.ndarray:
    return BESIROGLU


@pytest.fixture(scope="session")
def lab_fit() -> Fit:
    """35 runs on five iso-FLOP lines from 6.3e17 to 1.6e20 FLOPs, noise 0.3% of loss."""
    runs = simulate_isoflop(BESIROGLU, IsoflopDesign(5, 7, 1e19), 0.003, np.random.default_rng(0))
    return fit_table(runs, bootstrap=200)


@pytest.fixture(scope="session")
def laptop_fit() -> Fit:
    """20 runs on four lines around 3e11 FLOPs, as a few minutes of two cores make them."""
    truth = np.array([60.0, 40.0, 2.2, 0.30, 0.25])
    runs = simulate_isoflop(truth, IsoflopDesign(4, 5, 3e11, step=2.2, width=8), 0.003, np.random.default_rng(1))
    return fit_table(runs, bootstrap=200)


@pytest.fixture(scope="session")
def study_context() -> StudyContext:
    """What a laptop's study knows of itself: a small vocabulary, a short context, five million tokens of text."""
    law = LearningRateLaw(
        rate_at=Interval(estimate=8e-3, low=6e-3, high=1e-2),
        params_at=6e4,
        exponent=Interval(estimate=0.3, low=0.2, high=0.4),
        basis="probed at 30k and 120k parameters",
    )
    return StudyContext(
        architecture="llama",
        vocabulary=1024,
        context=128,
        tied=True,
        data_key="d" * 64,
        tokenizer_key="t" * 64,
        held_out_tokens=65_536,
        unique_tokens=5_000_000,
        bytes_per_token=2.9,
        learning_rate_law=law,
        batch=BatchRule(batch_tokens=512, at_tokens=2_000_000, exponent=0.383),
        weight_decay=WeightDecay(absolute=0.1),
        seed=0,
    )
