"""Forecasts by several laws at once, each with its drift and weighted by its evidence (Hoeting et al. 1999, doi
10.1214/ss/1009212519).

Where the laws agree at the target nothing changes; where they do not, the disagreement is part of the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.fits.drift import Drift, Predictive, fit_drift
from scaling.laws.law import FloatArray, IntArray, LossLaw

__all__ = ["Averaged", "fit_averaged"]


@dataclass(frozen=True)
class Averaged:
    """One or more laws with their drifts; ``weights`` sum to one."""

    members: tuple[Drift, ...]
    weights: tuple[float, ...]

    @property
    def tau(self) -> tuple[float, float]:
        """Posterior geometric means of τ_C and τ_R over all members."""
        logs = np.log([member.tau for member in self.members])
        tau_c, tau_r = np.exp(np.array(self.weights) @ logs)
        return float(tau_c), float(tau_r)

    def predictive(self, params: float, tokens: float, *, noise: bool = True) -> Predictive:
        """What ln L of one run is expected to be: the mixture of the members'."""
        told = [member.predictive(params, tokens, noise=noise) for member in self.members]
        return Predictive(
            np.concatenate([weight * one.weight_K for weight, one in zip(self.weights, told, strict=True)]),
            np.concatenate([one.mean_K for one in told]),
            np.concatenate([one.variance_K for one in told]),
        )


def fit_averaged(
    laws: Sequence[LossLaw],
    params: FloatArray,
    tokens: FloatArray,
    loss: FloatArray,
    *,
    irreducible: tuple[float, float] | None = None,
    huber_delta: float = 1e-3,
    trunks: IntArray | None = None,
) -> Averaged:
    """Each of ``laws`` with its drift through n runs (see ``fit_drift``), weighted by evidence under equal priors.

    Outliers, and how far runs lie from the best of their compute, are told by the first law for all, so that the others
    are judged on the same noise.
    """
    members: list[Drift] = []
    for law in laws:
        first = members[0] if members else None
        members.append(
            fit_drift(
                law,
                params,
                tokens,
                loss,
                irreducible=irreducible,
                huber_delta=huber_delta,
                trunks=trunks,
                noise_of=first,
            )
        )
    log_evidence = np.array([member.log_evidence for member in members])
    weights = np.exp(log_evidence - log_evidence.max())
    return Averaged(tuple(members), tuple((weights / math.fsum(weights)).tolist()))
