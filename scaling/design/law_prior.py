"""What is believed of the law before the runs that a design is for: several plausible truths, not one guess."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scaling import laws
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import FloatArray, LossLaw
from scaling.published import chinchilla_constants, published_table
from scaling.record import Record

__all__ = ["LawPrior"]

_SMALL_FLOPS, _LARGE_FLOPS = 1e12, 1e20
"""Where the truths of ``plausible`` are those of small studies, and of a lab's; in between they are mixed by log C."""


class LawPrior(Record):
    """Truths of one law, each as likely as the others: rows of its constants."""

    law: str = "chinchilla"
    draws: tuple[tuple[float, ...], ...]
    source: str

    @property
    def loss_law(self) -> LossLaw:
        return laws.get_loss_law(self.law)

    @property
    def theta(self) -> FloatArray:
        """(S, P)"""
        return np.array(self.draws, dtype=np.float64)

    def tokens_per_param(self, flops: float) -> float:
        """Geometric mean of D*/N* over the truths at ``flops`` = 6ND."""
        params_S, tokens_S = self.loss_law.optimum(self.theta, flops)
        return float(np.exp(np.mean(np.log(tokens_S / params_S))))

    @classmethod
    def plausible(cls, flops: float, *, truths: int = 12, seed: int = 0) -> LawPrior:
        """Truths for a study around ``flops``, where nothing is known but its scale.

        α and β 0.2 to 0.6 in small studies and 0.25 to 0.5 in large ones; at the optimum of ``flops`` 5 to 40 tokens a
        parameter, and 1 to 2.5 reducible nats in small studies, 0.3 to 1 in large ones; E 1.5 to 3 nats. The small end
        is ``simulation.random_small_truth``.
        """
        rng = np.random.default_rng([seed, 11])
        large = min(max(math.log(flops / _SMALL_FLOPS) / math.log(_LARGE_FLOPS / _SMALL_FLOPS), 0.0), 1.0)

        def between(small: float, big: float) -> float:
            return small + large * (big - small)

        # A Latin hypercube: few truths, and yet each constant is spread over its range.
        from scipy.stats import qmc

        unit_S5 = qmc.LatinHypercube(5, rng=rng).random(truths)
        alpha, beta = (between(0.2, 0.25) + between(0.4, 0.25) * unit_S5[:, column] for column in (0, 1))
        reducible = between(1.0, 0.3) + between(1.5, 0.7) * unit_S5[:, 2]
        irreducible = 1.5 + 1.5 * unit_S5[:, 3]
        ratio = 5.0 * 8.0 ** unit_S5[:, 4]
        params = np.sqrt(flops / 6 / ratio)
        a = reducible * beta / (alpha + beta) * params**alpha
        b = reducible * alpha / (alpha + beta) * (params * ratio) ** beta
        return cls._of(np.column_stack((a, b, irreducible, alpha, beta)), f"plausible laws around {flops:.3g} FLOPs")

    @classmethod
    def published(cls, flops: float, *, truths: int = 12, seed: int = 0) -> LawPrior:
        """The published laws of Chinchilla's form, each as it stands and then moved (see ``near``)."""
        known = [chinchilla_constants(row["key"]) for row in published_table()["chinchilla"]]
        return cls.near(np.stack([one for one in known if one is not None]), flops, truths=truths, seed=seed)

    @classmethod
    def near(
        cls, theta: FloatArray, flops: float, *, spread: float = 0.15, truths: int = 12, seed: int = 0
    ) -> LawPrior:
        """Chinchilla's law with constants (P,) or any of (R, P) as they stand, then moved: α, β and the two terms'
        sizes at the optimum of ``flops`` by factors of ``spread``, E by a third of it."""
        rng = np.random.default_rng([seed, 12])
        rows_SP = np.resize(np.atleast_2d(theta), (truths, len(CHINCHILLA.NAMES)))
        a, b, e, alpha, beta = rows_SP.T
        params, tokens = CHINCHILLA.optimum(rows_SP, flops)
        # The first of each stands as it is.
        moved_S5 = np.exp(spread * rng.standard_normal((truths, 5)))
        moved_S5[: len(np.atleast_2d(theta))] = 1.0
        new_alpha, new_beta = alpha * moved_S5[:, 0], beta * moved_S5[:, 1]
        return cls._of(
            np.column_stack(
                (
                    a * params**-alpha * moved_S5[:, 2] * params**new_alpha,
                    b * tokens**-beta * moved_S5[:, 3] * tokens**new_beta,
                    e * moved_S5[:, 4] ** (1 / 3),
                    new_alpha,
                    new_beta,
                )
            ),
            "given laws and their neighbours",
        )

    @classmethod
    def of_fit(cls, fit: Fit, *, truths: int = 12) -> LawPrior:
        """The posterior of an earlier fit, thinned to ``truths``; :class:`UserError` where it was refused."""
        draws: Sequence[tuple[float, ...]] = fit.parametric.draws
        if fit.parametric.status != "ok":
            raise UserError(f"fit has no law to plan from: {fit.parametric.reason}")
        estimate = tuple(interval.estimate for interval in fit.parametric.parameters.values())
        kept = [draws[place] for place in np.linspace(0, len(draws) - 1, truths - 1).astype(int)] if draws else []
        return cls(law=fit.parametric.law, draws=(estimate, *kept), source=f"fit {fit.key[:12]}")

    @classmethod
    def _of(cls, theta_SP: FloatArray, source: str) -> LawPrior:
        return cls(draws=tuple(tuple(float(value) for value in row) for row in theta_SP), source=source)
