"""Approach 3 of Hoffmann et al. (2203.15556): one law through all runs, with intervals.

    minimise over the law's constants   Σ_i Huber_δ(ln L̂(N_i, D_i) − ln L_i),  δ = 1e-3, the sum

as corrected by Besiroglu et al. (2404.10102).
"""

from __future__ import annotations

import numpy as np

from scaling.errors import UserError
from scaling.fit import Diagnostic, ParametricFit
from scaling.fits.bootstrap import BootstrapMethod, Resampling, interval_of, residual_scale, stored_draws
from scaling.fits.diagnosis import findings
from scaling.fits.estimate import draw, estimate
from scaling.fits.identifiability import parametric_refusal
from scaling.laws.chinchilla import CHINCHILLA
from scaling.laws.law import LossLaw
from scaling.table import Table, budget_levels

__all__ = ["fit_parametric"]


def fit_parametric(
    table: Table,
    *,
    law: LossLaw = CHINCHILLA,
    huber_delta: float = 1e-3,
    bootstrap: int = 1000,
    level: float = 0.9,
    seed: int = 0,
    method: BootstrapMethod = "residuals",
    diagnose: bool = True,
) -> tuple[ParametricFit, tuple[Diagnostic, ...]]:
    """The law through a table's runs, and what to know before trusting it.

    Intervals at ``level`` come from ``bootstrap`` refits of resampled residuals; ``method`` chooses another resampling
    ("points" is the published procedure). ``diagnose`` False leaves out the findings that cost refits (influential
    runs, flat profiles). A table whose exponents are not identified gives status "refused" with the reason and the
    cure.
    """
    refusal = parametric_refusal(table.params, table.tokens, table.flops_per_param_token, constants=len(law.parameters))
    if refusal is not None:
        refused = ParametricFit(status="refused", reason=refusal.reason, law=law.name, huber_delta=huber_delta)
        told = Diagnostic(severity="refusal", code="parametric", message=refusal.reason, cure=refusal.cure)
        return refused, (told,)
    inputs = table.params, table.tokens
    found = estimate(law, inputs, table.loss, huber_delta)
    draws_KP = np.empty((0, len(law.NAMES)))
    if bootstrap:
        rng = np.random.default_rng([seed, 3])
        resampling, clusters = _resampling(table, method)
        draws_KP = draw(
            found, inputs, table.loss, huber_delta, draws=bootstrap, rng=rng, method=resampling, clusters=clusters
        )
    # Where the exponents change with compute they are told at the largest budget fitted.
    top = float(table.flops.max())
    n_exponent, d_exponent = law.exponents(found.theta, top)
    n_draws, d_draws = law.exponents(draws_KP, top)
    fit = ParametricFit(
        status="ok",
        law=law.name,
        parameters={
            name: interval_of(float(found.theta[i]), draws_KP[:, i], level) for i, name in enumerate(law.NAMES)
        },
        objective=found.objective,
        n_exponent=interval_of(float(n_exponent), n_draws, level),
        d_exponent=interval_of(float(d_exponent), d_draws, level),
        huber_delta=huber_delta,
        residual_sd=residual_scale(found.residuals, len(law.NAMES)),
        draws=stored_draws(draws_KP),
    )
    return fit, findings(table, found, fit, draws_KP, level=level, refits=diagnose)


def _resampling(table: Table, method: BootstrapMethod) -> tuple[Resampling, np.ndarray | None]:
    """How to draw, and which runs go together, (n,)."""
    if method == "size":
        return "points", budget_levels(table.params)
    if method == "budget":
        return "points", budget_levels(table.flops)
    if method == "trunk":
        if "trunk_key" not in table.labels:
            raise UserError(
                "resample is trunk, but the table has no column trunk_key: give one, or resample by size or budget"
            )
        return "points", table.trunks
    return method, table.trunks
