"""The loss of the compute-optimal run as a power law of compute alone, through the minima of the iso-FLOP lines.

    L*(C) = E + k·C^−γ

The parametric law can describe every line of a small sweep and still level off far too early: what bends the lines (a
model too small, too few steps) is then taken for the frontier's bend, and E comes out above what larger models of the
same text have reached. Here only the minima count, and E is not fitted: it is drawn evenly from the range that text
admits.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from scaling.fit import FrontierFit, IsoflopFit, ParametricFit
from scaling.fits.bootstrap import interval_of, stored_draws
from scaling.laws.law import FloatArray
from scaling.table import Table

__all__ = [
    "IRREDUCIBLE_BITS_PER_BYTE",
    "fit_frontier",
    "frontier_log_losses",
    "irreducible_range",
    "levels_off_too_early",
]

IRREDUCIBLE_BITS_PER_BYTE = (0.3, 0.8)
"""Chinchilla's E is 0.57 to 0.61 bits per byte (1.69 to 1.82 nats at 4.3 bytes a token; 2203.15556, 2404.10102). The
upper end is what large models measure on books; the lower allows for text that is easier than the web's."""
_PRIOR_SD_PER_DECADE = 0.01
"""SD of log loss that a decade adds to a law of one variable: published frontiers held to 0.2 to 1% over two."""
_FEWEST_MINIMA = 3


def irreducible_range(table: Table) -> tuple[float, float] | None:
    """The range of E in nats a token, or None where the table does not say how many bytes a token stands for."""
    if "bits_per_byte" not in table.labels:
        return None
    bits = table.labels["bits_per_byte"].to_numpy(dtype=np.float64)
    known = (bits > 1e-3) & (bits < 1e3)
    factor = float(np.median(table.loss[known] / bits[known])) if known.any() else 0.0
    low, high = (bits * factor for bits in IRREDUCIBLE_BITS_PER_BYTE)
    return (low, high) if 0 < high < float(table.loss.min()) else None


def fit_frontier(
    isoflop: IsoflopFit, irreducible: tuple[float, float] | None, *, draws: int, level: float, seed: int = 0
) -> FrontierFit:
    """The law through the usable minima of ``isoflop``; intervals at its level (``level``), ``draws`` draws.

    Each draw takes an E from ``irreducible`` (nats a token), moves each minimum within its own error, widened where the
    minima scatter more than that around the law, and solves k and γ by weighted least squares of ln(L* − E) on ln C.
    """
    minima = [optimum for optimum in isoflop.optima if optimum.status == "ok" and optimum.loss is not None]
    if irreducible is None:
        return FrontierFit(status="refused", reason="the table has no bits_per_byte, so what E can be is not known")
    if isoflop.status == "refused" or len(minima) < _FEWEST_MINIMA:
        return FrontierFit(
            status="refused", reason=f"{len(minima)} iso-FLOP minima are too few for a law: {_FEWEST_MINIMA} are needed"
        )
    ln_flops_M = np.log([optimum.flops for optimum in minima])
    loss_M = np.array([optimum.loss.estimate for optimum in minima if optimum.loss])
    sd_M = np.array([_sd(optimum.loss.low, optimum.loss.high, level) for optimum in minima if optimum.loss])
    sd_M = np.maximum(sd_M, 1e-4 * loss_M)
    middle = 0.5 * sum(irreducible)
    inflation = _scatter(ln_flops_M, loss_M, sd_M, middle)
    rng = np.random.default_rng([seed, 5])
    count = max(draws, 200)
    e_K = rng.uniform(*irreducible, size=count)
    moved_KM = loss_M + inflation * sd_M * rng.standard_normal((count, len(loss_M)))
    e_K = np.minimum(e_K, 0.95 * moved_KM.min(axis=1))
    ln_k_K, gamma_K = _power_law(ln_flops_M, moved_KM, sd_M, e_K)
    _, gamma = _power_law(ln_flops_M, loss_M[None], sd_M, np.array([middle]))
    return FrontierFit(
        status="ok",
        irreducible=irreducible,
        gamma=interval_of(float(gamma[0]), gamma_K, level),
        model_sd_per_decade=_drift(ln_flops_M, loss_M, sd_M, middle),
        draws=tuple((row[0], row[1], row[2]) for row in stored_draws(np.column_stack((e_K, ln_k_K, gamma_K)))),
    )


def frontier_log_losses(fit: FrontierFit, flops: float) -> FloatArray:
    """ln L* at ``flops`` for each of the fit's draws, (K,)."""
    e_K, ln_k_K, gamma_K = np.array(fit.draws, dtype=np.float64).reshape(-1, 3).T
    return np.asarray(np.log(e_K + np.exp(ln_k_K - gamma_K * math.log(flops))))


def levels_off_too_early(parametric: ParametricFit, frontier: FrontierFit) -> bool:
    """True where there is a frontier, and the parametric law's E lies above what text admits."""
    if parametric.status != "ok" or frontier.status != "ok" or frontier.irreducible is None:
        return False
    return "E" in parametric.parameters and parametric.parameters["E"].estimate > frontier.irreducible[1]


def _sd(low: float | None, high: float | None, level: float) -> float:
    if low is None or high is None:
        return 0.0
    return (high - low) / 2 / NormalDist().inv_cdf((1 + level) / 2)


def _power_law(
    ln_flops_M: FloatArray, loss_KM: FloatArray, sd_M: FloatArray, e_K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """ln k and γ of ln(L − E) = ln k − γ ln C, weighted by the error of each logarithm: each (K,)."""
    y_KM = np.log(np.maximum(loss_KM - e_K[:, None], 1e-6))
    weight_KM = ((loss_KM - e_K[:, None]) / sd_M) ** 2
    weight_KM = weight_KM / weight_KM.sum(axis=1, keepdims=True)
    centre_K = weight_KM @ ln_flops_M
    offset_KM = ln_flops_M - centre_K[:, None]
    slope_K = (weight_KM * offset_KM * y_KM).sum(axis=1) / (weight_KM * offset_KM**2).sum(axis=1)
    return (weight_KM * y_KM).sum(axis=1) - slope_K * centre_K, -slope_K


def _predicted(ln_flops: FloatArray, ln_k: float, gamma: float, e: float) -> FloatArray:
    return np.asarray(e + np.exp(ln_k - gamma * ln_flops))


def _scatter(ln_flops_M: FloatArray, loss_M: FloatArray, sd_M: FloatArray, e: float) -> float:
    """How much more the minima scatter around the law than their own errors say, at least 1 (Birge 1932)."""
    if len(loss_M) < _FEWEST_MINIMA + 1:
        return 1.0
    ln_k, gamma = _power_law(ln_flops_M, loss_M[None], sd_M, np.array([e]))
    misfit_M = (loss_M - _predicted(ln_flops_M, float(ln_k[0]), float(gamma[0]), e)) / sd_M
    return max(1.0, math.sqrt(float(misfit_M @ misfit_M) / (len(loss_M) - 2)))


def _drift(ln_flops_M: FloatArray, loss_M: FloatArray, sd_M: FloatArray, e: float) -> float:
    """SD of log loss a decade: the prior, joined by the error of the last minimum predicted from the others."""
    if len(loss_M) < _FEWEST_MINIMA + 1:
        return _PRIOR_SD_PER_DECADE
    ln_k, gamma = _power_law(ln_flops_M[:-1], loss_M[None, :-1], sd_M[:-1], np.array([e]))
    predicted = float(_predicted(ln_flops_M[-1:], float(ln_k[0]), float(gamma[0]), e)[0])
    decades = (ln_flops_M[-1] - ln_flops_M[-2]) / math.log(10)
    noise = float(sd_M[-1] / loss_M[-1]) * math.sqrt(2)
    drift = max(0.0, abs(math.log(predicted / loss_M[-1])) - noise) / decades
    return math.sqrt((_PRIOR_SD_PER_DECADE**2 + drift**2) / 2) if drift > _PRIOR_SD_PER_DECADE else _PRIOR_SD_PER_DECADE
