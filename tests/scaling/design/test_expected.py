from __future__ import annotations

import math

import numpy as np
import pytest

from scaling.design.design import Design
from scaling.design.expected import expected_interval
from scaling.design.family import Family
from scaling.design.information import information_design
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.design.law_prior import LawPrior
from scaling.design.trunks import trunk_numbers
from scaling.fits.drift import DriftPrior, fit_drift
from scaling.fits.estimate import draw, estimate
from scaling.fits.hinges import axis_through
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray

FAMILY = Family("llama", 256, 128, True, 512)
PRIOR = LawPrior.plausible(3e12)
TARGET, NOISE = 1e17, 0.004
LINES = isoflop_design(
    FAMILY,
    budgets=budgets_for(4.5e14, 5, 4.0, 7),
    sizes_per_budget=7,
    tokens_per_param_centre=PRIOR.tokens_per_param(3e12),
    size_step=16 ** (1 / 6),
)
INFORMED = information_design(FAMILY, 2e14, target_flops=TARGET, prior=PRIOR, noise=NOISE)
BRANCHED = information_design(FAMILY, 1e14, target_flops=TARGET, prior=PRIOR, noise=NOISE, cooldown=0.15)
DESIGNS = pytest.mark.parametrize("design", [LINES, INFORMED, BRANCHED], ids=["lines", "informed", "branched"])


def _runs(design: Design) -> tuple[FloatArray, FloatArray]:
    params = np.array([point.params.total for point in design.points], dtype=np.float64)
    return params, np.array([point.tokens for point in design.points], dtype=np.float64)


def _shocks(design: Design, rng: np.random.Generator) -> FloatArray:
    trunk_n = trunk_numbers(design.points)
    own, shared = rng.standard_normal(len(trunk_n)), rng.standard_normal(trunk_n.max() + 1)
    return NOISE * math.sqrt(0.5) * (own + shared[trunk_n])


def _per_param_token(design: Design) -> float:
    return float(np.median([point.flops / point.params.total / point.tokens for point in design.points]))


@pytest.mark.slow
@DESIGNS
def test_intervals_of_fits_come_to_what_was_expected(design: Design) -> None:
    """Eight truths, two studies of each: the estimator's own 90% intervals against what was told before."""
    rng = np.random.default_rng(4)
    params, tokens = _runs(design)
    ratios = []
    for theta in PRIOR.theta[:8]:
        told = expected_interval(design, LawPrior(draws=(tuple(theta),), source="known"), TARGET, NOISE)
        for _ in range(2):
            loss = CHINCHILLA.predict(theta, params, tokens) * np.exp(_shocks(design, rng))
            found = estimate(CHINCHILLA, (params, tokens), loss, 1e-3)
            sample = draw(
                found, (params, tokens), loss, 1e-3, draws=100, rng=rng, clusters=trunk_numbers(design.points)
            )
            best_n, best_d = (float(x) for x in CHINCHILLA.optimum(found.theta, TARGET, _per_param_token(design)))
            for values, expected in (
                (CHINCHILLA.predict(sample, best_n, best_d), math.log1p(told.loss_if_law_holds)),
                (CHINCHILLA.optimum(sample, TARGET, _per_param_token(design))[0], math.log(told.params_if_law_holds)),
            ):
                low, high = np.quantile(np.log(values), [0.05, 0.95])
                ratios.append(math.log((high - low) / 2 / expected))
    loss_ratio, params_ratio = np.exp(np.mean(np.reshape(ratios, (-1, 2)), axis=0))
    assert 0.8 < loss_ratio < 1.25
    assert 0.8 < params_ratio < 1.25


@pytest.mark.slow
@DESIGNS
def test_forecasts_of_drifting_truths_come_to_what_was_expected(design: Design) -> None:
    """Twelve truths with a drift as the forecast's prior says: the width of the forecast, in the middle of them."""
    rng, prior = np.random.default_rng(6), DriftPrior()
    params, tokens = _runs(design)
    ratios = []
    for theta in PRIOR.theta:
        told = expected_interval(design, LawPrior(draws=(tuple(theta),), source="known"), TARGET, NOISE)
        best_n, best_d = (float(x) for x in CHINCHILLA.optimum(theta, TARGET, _per_param_token(design)))
        log_factor = np.zeros(len(params))
        for position, two_sided, (mean, sd) in (
            (np.log10(params) + np.log10(tokens), False, prior.ln_tau_c),
            (np.log10(tokens) - np.log10(params), True, prior.ln_tau_r),
        ):
            origin = float(np.median(position) if two_sided else position.min())
            axis = axis_through(position, origin, two_sided)
            features = axis.features(position)
            tau = math.exp(mean + sd * rng.standard_normal())
            log_factor += features @ (tau * math.sqrt(axis.step) * rng.standard_normal(features.shape[1]))
        loss = theta[2] + (CHINCHILLA.predict(theta, params, tokens) - theta[2]) * np.exp(log_factor)
        model = fit_drift(
            CHINCHILLA, params, tokens, loss * np.exp(_shocks(design, rng)), trunks=trunk_numbers(design.points)
        )
        forecast = model.predictive(best_n, best_d)
        ratios.append((forecast.quantile(0.95) - forecast.quantile(0.05)) / 2 / math.log1p(told.loss))
    assert 0.65 < np.exp(np.mean(np.log(ratios))) < 1.5


def test_less_noise_and_a_nearer_target_narrow_what_is_expected() -> None:
    now = expected_interval(INFORMED, PRIOR, TARGET, NOISE)
    assert expected_interval(INFORMED, PRIOR, TARGET, NOISE / 2).loss < now.loss
    assert expected_interval(INFORMED, PRIOR, TARGET / 30, NOISE).loss < now.loss


def test_less_compute_chosen_by_information_tells_more_than_lines() -> None:
    """With fewer than half of the lines' FLOPs, of both answers, with and without drift."""
    assert INFORMED.flops < 0.5 * LINES.flops
    lines, informed = (expected_interval(design, PRIOR, TARGET, NOISE) for design in (LINES, INFORMED))
    assert informed.loss_if_law_holds < lines.loss_if_law_holds
    assert informed.params_if_law_holds < lines.params_if_law_holds
