"""How wide the answer's interval will be, for a design of which nothing is trained yet.

Under each plausible truth the fit is taken linear at it. The law alone is fitted by the sum of Huber terms, each run
by itself, so that its covariance is (JᵀJ)⁻¹ Jᵀ Ψ J (JᵀJ)⁻¹ with Ψ the covariance of the Huber terms' slopes: what
branches share is in it. The law with its drift is fitted under the drift's own prior (``scaling.fits.drift``), whose
τ_C and τ_R are spread as that prior says; runs tell little of them.

Shapes: n runs, S truths, K scenarios, P constants, M coefficients, Q = 2 answers (ln L, ln N*).
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field
from scipy import stats

from scaling.design.design import Design
from scaling.design.law_prior import LawPrior
from scaling.design.linear_study import LinearStudy, linear_study
from scaling.design.trunks import trunk_numbers
from scaling.fits.bootstrap import SHARED_VARIANCE
from scaling.fits.drift import DriftPrior, Predictive
from scaling.fits.linearised import psi_moments
from scaling.laws.law import FloatArray, IntArray
from scaling.record import Record

__all__ = ["Alternative", "ExpectedInterval", "expected_interval"]

_NODES = 32


class ExpectedInterval(Record):
    """Half-widths of the answer at ``target_flops``, geometric means over the truths of a prior."""

    level: float
    target_flops: float
    loss_if_law_holds: float = Field(description="relative, of the law's loss at the optimum")
    params_if_law_holds: float = Field(description="a factor: N* is known to within times and divided by it")
    loss: float = Field(description="relative, of a new run's loss: the law, its drift and the run's own noise")
    params: float = Field(description="a factor, with the law's drift along tokens a parameter")
    runs: int
    flops: float


class Alternative(Record):
    """Another design beside the one that is planned; ``expected`` is None where it can't be laid out."""

    name: str
    expected: ExpectedInterval | None
    reason: str | None = None


def expected_interval(
    design: Design,
    prior: LawPrior,
    target_flops: float,
    noise: float,
    *,
    drift: DriftPrior = DriftPrior(),  # noqa: B008  # frozen
    huber_delta: float = 1e-3,
    level: float = 0.9,
) -> ExpectedInterval:
    """What ``fit_table`` will say of the loss and of N* at ``target_flops``, before any run of ``design`` is trained.

    noise: SD of log loss from one seed to another.
    """
    trunk_n = trunk_numbers(design.points)
    weights = {
        (tau_c, tau_r): math.exp(
            -0.5 * ((math.log(tau_c) - drift.ln_tau_c[0]) / drift.ln_tau_c[1]) ** 2
            - 0.5 * ((math.log(tau_r) - drift.ln_tau_r[0]) / drift.ln_tau_r[1]) ** 2
        )
        for tau_c in drift.tau_grid
        for tau_r in drift.tau_grid
    }
    study = linear_study(
        prior,
        design.points,
        target_flops=target_flops,
        noise=noise,
        taus=((0.0, 0.0, 1.0), *((*taus, weight) for taus, weight in weights.items())),
        excess_share=drift.excess_share,
        knots=24,
    )
    truths = len(prior.draws)
    law_SQ = _law_alone(study, truths, trunk_n, huber_delta, level)
    variance_KQ = _with_drift(study, truths, trunk_n, drift.trunk_share)
    variance_KQ[:, 0] += noise**2
    mixture_T = np.array(list(weights.values())) / sum(weights.values())
    tail = 1 - (1 - level) / 2
    with_drift_SQ = np.array(
        [
            [
                Predictive(mixture_T, np.zeros(len(mixture_T)), variance_KQ[truth::truths, answer]).quantile(tail)
                for answer in range(2)
            ]
            for truth in range(truths)
        ]
    )
    law_loss, law_params = np.exp(np.log(law_SQ).mean(axis=0))
    loss, params = np.exp(np.log(with_drift_SQ).mean(axis=0))
    return ExpectedInterval(
        level=level,
        target_flops=target_flops,
        loss_if_law_holds=math.expm1(law_loss),
        params_if_law_holds=_factor(law_params),
        loss=math.expm1(loss),
        params=_factor(params),
        runs=len(design.points),
        flops=design.flops,
    )


def _factor(half_width: float) -> float:
    """exp of it; beyond e^50 it is nothing known at all."""
    return math.exp(min(half_width, 50.0))


def _law_alone(study: LinearStudy, truths: int, trunk_n: IntArray, delta: float, level: float) -> FloatArray:
    """Half-widths of both answers under each truth, (S, Q)."""
    jacobian_SnP = study.gradient_KCM[:truths, :, : study.constants]
    target_SQP = study.target_KQM[:truths, :, : study.constants]
    slopes_nn, slope = _slopes(study.run_noise, delta, trunk_n)
    # What the box of the search allows; of constants that the runs identify it says nothing.
    box_SP = 0.25 / study.prior_KM[:truths, : study.constants] * study.run_noise**2
    normal_SPP = np.swapaxes(jacobian_SnP, 1, 2) @ jacobian_SnP + box_SP[:, None, :] * np.eye(study.constants)
    lever_SQn = np.linalg.solve(normal_SPP, np.swapaxes(target_SQP, 1, 2)).swapaxes(1, 2) @ np.swapaxes(
        jacobian_SnP, 1, 2
    )
    variance_SQ = np.einsum("sqi,ij,sqj->sq", lever_SQn, slopes_nn, lever_SQn, optimize=True) / slope**2
    spare = max(1, len(trunk_n) - study.constants)
    return np.asarray(np.sqrt(variance_SQ) * stats.t.ppf(0.5 + level / 2, spare))


def _slopes(noise: float, delta: float, trunk_n: IntArray) -> tuple[FloatArray, float]:
    """Covariance (n, n) of the slopes of the runs' Huber terms, and their mean change with the residual."""
    square, slope = psi_moments(noise, delta)
    node, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    weight = weight / weight.sum()
    other = SHARED_VARIANCE * node[:, None] + math.sqrt(1 - SHARED_VARIANCE**2) * node[None, :]
    mine = np.clip(noise * node, -delta, delta)
    shared = float((weight * mine) @ (np.clip(noise * other, -delta, delta) @ weight))
    return np.where(np.eye(len(trunk_n), dtype=bool), square, np.where(trunk_n[:, None] == trunk_n, shared, 0.0)), slope


def _with_drift(study: LinearStudy, truths: int, trunk_n: IntArray, share: float) -> FloatArray:
    """Variances (K, Q) of both answers under every truth and drift."""
    correlation_nn = np.where(trunk_n[:, None] == trunk_n, share, 0.0)
    np.fill_diagonal(correlation_nn, 1.0)
    turn_nn = np.linalg.inv(np.linalg.cholesky(correlation_nn))
    scaled_KnM = turn_nn @ (study.gradient_KCM[truths:] / np.sqrt(study.noise_KC[truths:])[..., None])
    normal_KMM = np.swapaxes(scaled_KnM, 1, 2) @ scaled_KnM
    diagonal = np.arange(normal_KMM.shape[1])
    normal_KMM[:, diagonal, diagonal] += 1 / study.prior_KM[truths:]
    target_KMQ = np.swapaxes(study.target_KQM[truths:], 1, 2)
    known_KQ = (target_KMQ * np.linalg.solve(normal_KMM, target_KMQ)).sum(axis=1)
    return np.asarray(known_KQ + study.beyond_KQ[truths:])
