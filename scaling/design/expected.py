"""How wide the answer's interval will be, for a design of which nothing is trained yet.

Under each plausible truth the fit is taken linear at it. The law alone is fitted by the sum of Huber terms, each run
by itself, so that its covariance is (JᵀJ)⁻¹ Jᵀ Ψ J (JᵀJ)⁻¹ with Ψ the covariance of the Huber terms' slopes: what
branches share is in it. The law with its drift is fitted under the drift's own prior (``scaling.fits.drift``), whose
τ_C and τ_R are spread as that prior says; runs tell little of them.

Shapes: n runs, T trunks, S truths, K scenarios, P constants, M coefficients, Q = 2 answers (ln L, ln N*).
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
    law_SQ = _law_alone(study, trunk_n, huber_delta, level)
    variance_KQ = _with_drift(study, trunk_n, drift.trunk_share)
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


def _law_alone(study: LinearStudy, trunk_n: IntArray, delta: float, level: float) -> FloatArray:
    """Half-widths of both answers under each truth, (S, Q)."""
    truths = len(study.gradient_SCM)
    jacobian_SnP = study.gradient_SCM[:, :, : study.constants]
    target_SQP = study.target_KQM[:truths, :, : study.constants]
    square, shared, slope = _slopes(study.run_noise, delta)
    # What the box of the search allows; of constants that the runs identify it says nothing.
    box_SP = 0.25 / study.prior_KM[:truths, : study.constants] * study.run_noise**2
    normal_SPP = np.swapaxes(jacobian_SnP, 1, 2) @ jacobian_SnP + box_SP[:, None, :] * np.eye(study.constants)
    lever_SPQ = np.linalg.solve(normal_SPP, np.swapaxes(target_SQP, 1, 2))
    lever_SnQ = jacobian_SnP @ lever_SPQ
    of_trunks_STQ = _sums(lever_SnQ, trunk_n)
    variance_SQ = (square - shared) * (lever_SnQ**2).sum(axis=1) + shared * (of_trunks_STQ**2).sum(axis=1)
    spare = max(1, len(trunk_n) - study.constants)
    return np.asarray(np.sqrt(variance_SQ) / slope * stats.t.ppf(0.5 + level / 2, spare))


def _sums(values_SnX: FloatArray, trunk_n: IntArray) -> FloatArray:
    """Of each trunk's runs, (S, T, X); a run alone is a trunk of one."""
    order = np.argsort(trunk_n, kind="stable")
    starts = np.unique(trunk_n[order], return_index=True)[1]
    return np.add.reduceat(values_SnX[:, order], starts, axis=1)


def _slopes(noise: float, delta: float) -> tuple[float, float, float]:
    """Of the slopes of the runs' Huber terms, the variance and the covariance of two branches of a trunk; and their
    mean change with the residual."""
    square, slope = psi_moments(noise, delta)
    node, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    weight = weight / weight.sum()
    other = SHARED_VARIANCE * node[:, None] + math.sqrt(1 - SHARED_VARIANCE**2) * node[None, :]
    mine = np.clip(noise * node, -delta, delta)
    shared = float((weight * mine) @ (np.clip(noise * other, -delta, delta) @ weight))
    return square, shared, slope


def _with_drift(study: LinearStudy, trunk_n: IntArray, share: float) -> FloatArray:
    """Variances (K, Q) of both answers under every truth and drift; the runs' noise is the same under every drift."""
    truths = len(study.gradient_SCM)
    scaled_SnM = study.gradient_SCM / np.sqrt(study.noise_KC[truths : 2 * truths])[..., None]
    # Branches correlate by ``share``: the inverse of such a block takes a part of the trunk's sum away (Woodbury).
    sums_STM = _sums(scaled_SnM, trunk_n)
    runs_T = np.bincount(trunk_n)[np.unique(trunk_n)]
    apart_T = share / (1 + (runs_T - 1) * share)
    within_SMM = np.swapaxes(scaled_SnM, 1, 2) @ scaled_SnM
    between_SMM = np.swapaxes(sums_STM * apart_T[:, None], 1, 2) @ sums_STM
    normal_KMM = np.tile((within_SMM - between_SMM) / (1 - share), (len(study.prior_KM) // truths - 1, 1, 1))
    diagonal = np.arange(normal_KMM.shape[1])
    normal_KMM[:, diagonal, diagonal] += 1 / study.prior_KM[truths:]
    target_KMQ = np.swapaxes(study.target_KQM[truths:], 1, 2)
    known_KQ = (target_KMQ * np.linalg.solve(normal_KMM, target_KMQ)).sum(axis=1)
    return np.asarray(known_KQ + study.beyond_KQ[truths:])
