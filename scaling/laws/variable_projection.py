"""Starting points by variable projection (Golub & Pereyra 1973): search α and β, solve E, A, B by least squares.

For given exponents the law is linear in (A, B, E), so a grid over the two exponents with non-negative least squares
of the other three visits every basin in milliseconds, where the published grid needs 4,500 starts (2203.15556,
appendix D.3).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from scaling.laws.law import FloatArray

__all__ = ["projected_starts"]

_EXPONENTS = np.concatenate((np.linspace(0.02, 0.98, 25), np.linspace(1.1, 2.4, 8)))


def _non_negative(gram_G33: FloatArray, moment_G3: FloatArray, square: float) -> tuple[FloatArray, FloatArray]:
    """Least squares with three non-negative unknowns, by enumerating the seven active sets: (G, 3) and RSS (G,)."""
    best_G3 = np.zeros_like(moment_G3)
    best_G = np.full(len(moment_G3), square)
    for count in (3, 2, 1):
        for subset in combinations(range(3), count):
            chosen = list(subset)
            gram = gram_G33[:, chosen][:, :, chosen]
            gram = gram + 1e-12 * np.eye(count) * np.trace(gram, axis1=1, axis2=2)[:, None, None]
            solution = np.linalg.solve(gram, moment_G3[:, chosen, None])[..., 0]
            rss_G = square - (solution * moment_G3[:, chosen]).sum(axis=1)
            wins_G = (solution >= 0).all(axis=1) & (rss_G < best_G)
            best_G[wins_G] = rss_G[wins_G]
            best_G3[wins_G] = 0.0
            best_G3[np.ix_(wins_G, chosen)] = solution[wins_G]
    return best_G3, best_G


def projected_starts(x_N: FloatArray, y_N: FloatArray, ln_loss_N: FloatArray, count: int) -> FloatArray:
    """The ``count`` best starts (count, 5) as (a, b, e, α, β), best first; ``x_N``, ``y_N`` centred ln N and ln D.

    Errors are relative (each equation is divided by its loss), so that they approximate those of log loss.
    """
    alpha_G, beta_G = (grid.ravel() for grid in np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij"))
    inverse_N = np.exp(-ln_loss_N)
    term_n_GN = np.exp(-alpha_G[:, None] * x_N) * inverse_N
    term_d_GN = np.exp(-beta_G[:, None] * y_N) * inverse_N
    basis_GN3 = np.stack((term_n_GN, term_d_GN, np.broadcast_to(inverse_N, term_n_GN.shape)), axis=-1)
    transposed_G3N = np.swapaxes(basis_GN3, 1, 2)
    solution_G3, rss_G = _non_negative(
        np.matmul(transposed_G3N, basis_GN3), transposed_G3N.sum(axis=2), float(len(ln_loss_N))
    )
    order = np.argsort(rss_G, kind="stable")[:count]
    # A coefficient of zero starts small but alive: its logarithm must be finite and its gradient not nothing.
    floor = 1e-3 * float(np.exp(ln_loss_N.min()))
    logs_G3 = np.log(np.maximum(solution_G3[order], floor))
    return np.column_stack((logs_G3, alpha_G[order], beta_G[order]))
