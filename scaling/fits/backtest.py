"""How far the law itself can be trusted beyond its data: leave the largest budgets out, predict them, look at the
error.

Resampled intervals hold inside the assumed law and far too seldom outside it. Here the law is refitted below each of a
few compute cuts and predicts the runs of the next band above; the error of log loss is modelled as noise plus sampling
plus u·decades with u ~ N(0, k²), and k is estimated from the cuts under a prior.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from scaling.fits.bootstrap import residual_scale
from scaling.fits.estimate import draw, estimate
from scaling.fits.identifiability import parametric_refusal
from scaling.laws.law import FloatArray, LossLaw
from scaling.table import budget_levels

__all__ = ["PRIOR_SD_PER_DECADE", "compute_cuts", "model_sd_per_decade"]

PRIOR_SD_PER_DECADE = 0.005
"""Median of the prior on k. Plain fits of published sweeps were off by 1 to 4% at one to three decades; half a per
cent a decade is what is left for the law after sampling and noise."""
_PRIOR_LOG_SD = 1.5
_FEWEST_POINTS_BELOW = 10
_NEAR_BEST = 0.05
"""Of a band, the runs within this share of its lowest loss are judged: a forecast is asked for near-optimal runs, and
the law's drift at the frontier is often hidden by the opposite error far from it."""
_MOST_CUTS = 3
_MOST_BUDGETS = 15
_DRAWS = 128


def compute_cuts(flops: FloatArray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks (n,): the runs below a cut, and those of the band above it that it predicts. Bands never overlap.

    Runs on iso-FLOP lines are cut between lines; a continuum of compute is cut at 70, 80 and 90% of its log range.
    """
    levels = budget_levels(flops)
    count = int(levels.max()) + 1
    if count <= _MOST_BUDGETS:
        tops = range(count - 1, max(0, count - 1 - _MOST_CUTS), -1)
        return [(levels < top, levels == top) for top in tops]
    position = (np.log(flops) - math.log(flops.min())) / math.log(flops.max() / flops.min())
    edges = (0.7, 0.8, 0.9, math.inf)
    return [(position < low, (position >= low) & (position < high)) for low, high in pairwise(edges)]


def _drift_per_decade(
    law: LossLaw,
    params: FloatArray,
    tokens: FloatArray,
    flops: FloatArray,
    loss: FloatArray,
    below: np.ndarray,
    band: np.ndarray,
    delta: float,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """The error of log loss a decade of extrapolation, and the variance it has from sampling and noise alone."""
    if below.sum() < _FEWEST_POINTS_BELOW or not band.any():
        return None
    if parametric_refusal(params[below], tokens[below]) is not None:
        return None
    band = band & (loss <= (1 + _NEAR_BEST) * loss[band].min())
    decades = np.log10(flops[band] / flops[below].max())
    weight = float((decades * decades).sum())
    if weight < 0.01:
        return None
    inputs = params[below], tokens[below]
    found = estimate(law, inputs, loss[below], delta)
    errors = np.log(loss[band]) - np.log(law.predict(found.theta, params[band], tokens[band]))
    draws = draw(found, inputs, loss[below], delta, draws=_DRAWS, rng=rng)
    spread_KN = np.log(law.predict(draws, params[band], tokens[band])) - np.log(loss[band]) + errors
    low, high = np.quantile(spread_KN @ decades / weight, (0.16, 0.84))
    noise = residual_scale(found.residuals, len(found.free))
    return float(errors @ decades) / weight, ((high - low) / 2) ** 2 + noise * noise / weight


def model_sd_per_decade(
    law: LossLaw,
    params: FloatArray,
    tokens: FloatArray,
    flops: FloatArray,
    loss: FloatArray,
    delta: float,
    rng: np.random.Generator,
) -> tuple[float, int]:
    """k, the SD of log loss that each decade of extrapolation adds, and the number of cuts it was learned from.

    Each cut's drift u_j is N(0, k² + v_j) with v_j its sampling variance; ln k has the prior N(ln 0.005, 1.5²).
    Returned is the posterior mean of ln k, exponentiated: 0.005 where no cut can be made, and never moved far by one
    noisy cut.
    """
    cuts = compute_cuts(flops)
    tried = [_drift_per_decade(law, params, tokens, flops, loss, below, band, delta, rng) for below, band in cuts]
    drifts = [found for found in tried if found is not None]
    ln_k_G = math.log(PRIOR_SD_PER_DECADE) + _PRIOR_LOG_SD * np.linspace(-4, 4, 161)
    log_posterior_G = -0.5 * ((ln_k_G - math.log(PRIOR_SD_PER_DECADE)) / _PRIOR_LOG_SD) ** 2
    for drift, variance in drifts:
        total_G = np.exp(2 * ln_k_G) + variance
        log_posterior_G -= 0.5 * (np.log(total_G) + drift * drift / total_G)
    weight_G = np.exp(log_posterior_G - log_posterior_G.max())
    return math.exp(float((weight_G * ln_k_G).sum() / weight_G.sum())), len(drifts)
