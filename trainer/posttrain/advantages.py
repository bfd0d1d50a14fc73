"""Rewards of tokens, and how much better each token was than expected.

The reward of an answer comes at its last token; every token pays for having moved away from the reference
(Ziegler et al. 1909.08593, equation 2). An answer is an episode that ends with its last token, whether a stop token
came or the limit on its length cut it off: that limit is part of the task, so nothing is expected of what would have
come after it, and no value is bootstrapped. What a cut answer is worth is for the reward, or ``truncated_reward``, to
say.

Shapes: B answers, T tokens, padded on the right; masks are True where a token is real.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["generalised_advantages", "token_rewards", "whiten"]


def token_rewards(scores_B: Tensor, log_ratios_BT: Tensor, mask_BT: Tensor, kl_coefficient: float) -> Tensor:
    """r_t = −β log(π/π_ref)(a_t | s_t), plus the score at the last token (B, T); 0 where padded.

    log_ratios_BT: log π − log π_ref of the sampled tokens, in nats. kl_coefficient: β, in units of the score a nat.
    """
    rewards_BT = (-kl_coefficient * log_ratios_BT).where(mask_BT, 0)
    last_B1 = mask_BT.sum(1, keepdim=True) - 1
    return rewards_BT.scatter_add(1, last_B1, scores_B.to(rewards_BT).unsqueeze(1))


def generalised_advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T), 0 where padded (Schulman et al. 1506.02438, equation 16).

    δ_t = r_t + γ V(s_t+1) − V(s_t), A_t = δ_t + γλ A_t+1, and the return A_t + V(s_t) is what the value learns.
    values_BT: V(s_t) of what comes before token t. Beyond an answer's last token value and advantage are 0.
    """
    rewards_BT, values_BT = rewards_BT.where(mask_BT, 0), values_BT.where(mask_BT, 0)
    advantages_BT = torch.zeros_like(rewards_BT)
    next_value_B = next_advantage_B = torch.zeros_like(rewards_BT[:, 0])
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + discount * next_value_B - values_BT[:, t]
        next_advantage_B = delta_B + discount * gae_lambda * next_advantage_B
        next_value_B = values_BT[:, t]
        advantages_BT[:, t] = next_advantage_B
    # In padding all terms are 0, so nothing of it reaches the tokens before.
    return advantages_BT, advantages_BT + values_BT


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the real tokens (B, T); 0 where padded, and where all are equal."""
    real_N = values_BT[mask_BT]
    mean, sd = real_N.mean(), real_N.std(correction=0)
    return ((values_BT - mean) / (sd + 1e-8)).where(mask_BT, 0)
