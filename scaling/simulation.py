"""Studies with a known truth, so that every claim about a fit or an interval can be checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray

__all__ = ["CurveDesign", "IsoflopDesign", "random_small_truth", "simulate_curves", "simulate_isoflop"]


@dataclass(frozen=True)
class IsoflopDesign:
    """``sizes`` runs on each of ``budgets`` lines, budgets a factor ``step`` apart, sizes log-spaced over ``width``."""

    budgets: int
    sizes: int
    middle_flops: float
    step: float = 4.0
    width: float = 16.0
    miss: float = 1.0
    """Factor by which the design's guess of the optimal size is off."""


@dataclass(frozen=True)
class CurveDesign:
    """One training curve for each of ``sizes``, log-spaced over ``width`` around the optimum of ``middle_flops``.

    Each has ``points`` losses, log-spaced over a factor ``length`` of tokens around the D/N that is optimal there.
    """

    sizes: int
    middle_flops: float
    width: float = 128.0
    points: int = 30
    length: float = 100.0
    shared: float = 0.5
    """Part of the variance of the noise that a curve's points have in common."""


def random_small_truth(rng: np.random.Generator) -> tuple[FloatArray, float]:
    """A plausible law at laptop scale as theta (A, B, E, α, β), and the middle budget in FLOPs.

    E 1.5 to 3 nats, α and β 0.2 to 0.6, and 1 to 2.5 reducible nats at the compute optimum of the middle budget,
    which has 1e5 to 4e5 parameters and 1e6 to 4e6 tokens.
    """
    params, tokens = np.exp(rng.uniform(np.log([1e5, 1e6]), np.log([4e5, 4e6])))
    alpha, beta = rng.uniform(0.2, 0.6, size=2)
    reducible = rng.uniform(1.0, 2.5)
    # At the optimum α·A·N^−α = β·B·D^−β.
    scale_n = reducible * beta / (alpha + beta) * params**alpha
    scale_d = reducible * alpha / (alpha + beta) * tokens**beta
    return np.array([scale_n, scale_d, rng.uniform(1.5, 3.0), alpha, beta]), float(6 * params * tokens)


def simulate_isoflop(theta: FloatArray, design: IsoflopDesign, noise: float, rng: np.random.Generator) -> pd.DataFrame:
    """Runs with columns params, tokens, loss: ``noise`` is the SD of log loss, C = 6ND exactly."""
    exponents = np.arange(design.budgets) - (design.budgets - 1) / 2
    flops_B = design.middle_flops * design.step**exponents
    optimal_B, _ = CHINCHILLA.optimum(theta, design.middle_flops * np.ones(design.budgets))
    centre_B = design.miss * optimal_B * (flops_B / design.middle_flops) ** 0.5
    offsets_S = np.linspace(-0.5, 0.5, design.sizes) * np.log(design.width)
    params = (centre_B[:, None] * np.exp(offsets_S)).ravel()
    tokens = np.repeat(flops_B, design.sizes) / (6 * params)
    log_loss = np.log(CHINCHILLA.predict(theta, params, tokens)) + noise * rng.standard_normal(len(params))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": np.exp(log_loss)})


def simulate_curves(theta: FloatArray, design: CurveDesign, noise: float, rng: np.random.Generator) -> pd.DataFrame:
    """Losses along training curves, with columns params, tokens, loss, trunk_key: ``noise`` is the SD of log loss."""
    params, tokens = (float(value) for value in CHINCHILLA.optimum(theta, design.middle_flops))
    sizes_S = params * np.exp(np.linspace(-0.5, 0.5, design.sizes) * np.log(design.width))
    horizons_P = tokens / params * np.exp(np.linspace(-0.5, 0.5, design.points) * np.log(design.length))
    shared_S1 = math.sqrt(design.shared) * rng.standard_normal((design.sizes, 1))
    own_SP = math.sqrt(1 - design.shared) * rng.standard_normal((design.sizes, design.points))
    loss_SP = CHINCHILLA.predict(theta, sizes_S[:, None], sizes_S[:, None] * horizons_P)
    return pd.DataFrame(
        {
            "params": np.repeat(sizes_S, design.points),
            "tokens": (sizes_S[:, None] * horizons_P).ravel(),
            "loss": (loss_SP * np.exp(noise * (shared_S1 + own_SP))).ravel(),
            "trunk_key": [f"trunk {size}" for size in range(design.sizes) for _ in range(design.points)],
        }
    )
