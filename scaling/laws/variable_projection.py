"""Starting points by variable projection (Golub & Pereyra 1973): search the exponents, solve the rest by least squares.

Most laws are linear in some of their constants once the others are given, so a grid over the others with non-negative
least squares of these visits every basin in milliseconds. For Chinchilla's law, linear in (A, B, E) for given α and β,
the published grid needs 4,500 starts (2203.15556, appendix D.3).

Shapes: G grid points, n runs, M linear constants.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from scaling.laws.law import FloatArray

__all__ = ["best_projections", "log_of_projected", "projected_starts"]

_EXPONENTS = np.concatenate((np.linspace(0.02, 0.98, 25), np.linspace(1.1, 2.4, 8)))


def _non_negative(gram_GMM: FloatArray, moment_GM: FloatArray, square: float) -> tuple[FloatArray, FloatArray]:
    """Least squares with M non-negative unknowns, by enumerating the active sets: (G, M) and RSS (G,)."""
    unknowns = moment_GM.shape[1]
    best_GM = np.zeros_like(moment_GM)
    best_G = np.full(len(moment_GM), square)
    for count in range(unknowns, 0, -1):
        for subset in combinations(range(unknowns), count):
            chosen = list(subset)
            gram = gram_GMM[:, chosen][:, :, chosen]
            gram = gram + 1e-12 * np.eye(count) * np.trace(gram, axis1=1, axis2=2)[:, None, None]
            solution = np.linalg.solve(gram, moment_GM[:, chosen, None])[..., 0]
            rss_G = square - (solution * moment_GM[:, chosen]).sum(axis=1)
            wins_G = (solution >= 0).all(axis=1) & (rss_G < best_G)
            best_G[wins_G] = rss_G[wins_G]
            best_GM[wins_G] = 0.0
            best_GM[np.ix_(wins_G, chosen)] = solution[wins_G]
    return best_GM, best_G


def best_projections(
    terms_GnM: FloatArray, target_n: FloatArray, count: int, *, cost_G: FloatArray | float = 1.0
) -> tuple[np.ndarray, FloatArray]:
    """The ``count`` grid points where Σ_M c·term fits ``target_n`` best with c ≥ 0: their indices, best first, and c.

    ``cost_G`` weighs the residual sum of squares where it is not on one scale over the grid.
    """
    transposed_GMn = np.swapaxes(terms_GnM, 1, 2)
    solution_GM, rss_G = _non_negative(
        np.matmul(transposed_GMn, terms_GnM), transposed_GMn @ target_n, float(target_n @ target_n)
    )
    order = np.argsort(rss_G * cost_G, kind="stable")[:count]
    return order, solution_GM[order]


def log_of_projected(solution_GM: FloatArray, floor: float) -> FloatArray:
    """Logarithms of projected constants. One of zero starts small but alive: its gradient must not be nothing."""
    return np.asarray(np.log(np.maximum(solution_GM, floor)))


def projected_starts(x_n: FloatArray, y_n: FloatArray, ln_loss_n: FloatArray, count: int) -> FloatArray:
    """Chinchilla's ``count`` best starts (count, 5) as (a, b, e, α, β); ``x_n``, ``y_n`` are centred ln N and ln D.

    Errors are relative (each equation is divided by its loss), so that they approximate those of log loss.
    """
    alpha_G, beta_G = (grid.ravel() for grid in np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij"))
    inverse_n = np.exp(-ln_loss_n)
    term_n_Gn = np.exp(-alpha_G[:, None] * x_n) * inverse_n
    term_d_Gn = np.exp(-beta_G[:, None] * y_n) * inverse_n
    terms_Gn3 = np.stack((term_n_Gn, term_d_Gn, np.broadcast_to(inverse_n, term_n_Gn.shape)), axis=-1)
    order, solution_G3 = best_projections(terms_Gn3, np.ones(len(ln_loss_n)), count)
    logs_G3 = log_of_projected(solution_G3, 1e-3 * float(np.exp(ln_loss_n.min())))
    return np.column_stack((logs_G3, alpha_G[order], beta_G[order]))
