"""How far a policy has moved from its reference, and what that costs it.

With l = log π − log π_ref of a sampled token, three estimates of the divergence KL(π‖π_ref) (Schulman, "Approximating
KL divergence", 2020): k1 = l, unbiased, and negative for some tokens; k2 = l²/2, biased, of small variance; k3 =
e^−l − 1 + l, unbiased and never negative. Summed over an answer's tokens and averaged over answers, k1, k3 and the
exact divergence of each token's distribution estimate the KL of whole answers.

Which is used where. Inside the reward it is k1: the score-function gradient of −βk1 is that of the KL of whole answers
(Tang & Munos 2506.09477), while an exact KL that stands in the reward as a number says nothing of the token that it is
of. Reported and controlled is what ``PPOSettings.kl_estimator`` names: k1 unless told otherwise, exact where the
vocabulary is small. k3 has little spread near the reference, and misleads far from it: a policy that has settled on one
token hardly ever samples those that k3's mean hangs on (docs/decisions.md). Between the new and the old policy within
one step it is k3, averaged over tokens (``approx_kl``).

Shapes: B answers, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from scaling.record import Record

__all__ = ["AdaptiveCoefficient", "Estimator", "exact_kl", "k1", "k2", "k3"]

Estimator = Literal["k1", "k3", "exact"]


def k1(log_ratios_BT: Tensor) -> Tensor:
    return log_ratios_BT


def k2(log_ratios_BT: Tensor) -> Tensor:
    return log_ratios_BT.square() / 2


def k3(log_ratios_BT: Tensor) -> Tensor:
    return torch.expm1(-log_ratios_BT) + log_ratios_BT


def exact_kl(logits_BTV: Tensor, reference_logits_BTV: Tensor) -> Tensor:
    """KL(π‖π_ref) of each next token's distribution, in nats (B, T)."""
    log_p_BTV = torch.log_softmax(logits_BTV, dim=-1)
    return (log_p_BTV.exp() * (log_p_BTV - torch.log_softmax(reference_logits_BTV, dim=-1))).sum(-1)


class AdaptiveCoefficient(Record):
    """Keeps the KL where it is told, by a proportional controller of log β (Ziegler et al. 1909.08593, section 2.2).

    e = clip(KL / target − 1, ±0.2), then β ← β (1 + e · answers / horizon): at the largest error β changes by a factor
    e in 5 horizons. Their K_β = 0.1 a batch is ``answers / horizon``.
    """

    target_nats: float = Field(gt=0, allow_inf_nan=False)
    """Of whole answers."""
    horizon_answers: float = Field(default=10_000, gt=0, allow_inf_nan=False)
    clip: float = Field(default=0.2, gt=0, lt=1)

    def next(self, coefficient: float, kl_nats: float, answers: int) -> float:
        """β after a step of ``answers`` whose mean KL was ``kl_nats``."""
        error = min(max(kl_nats / self.target_nats - 1, -self.clip), self.clip)
        return coefficient * (1 + error * answers / self.horizon_answers)
