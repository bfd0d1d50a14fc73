"""The clipped losses of proximal policy optimisation (Schulman et al. 1707.06347), summed over the real tokens.

Sums, not means: a minibatch may be taken in several passes, and its gradient is that of the mean over all its tokens.

Shapes: B answers, T tokens; masks are True where a token is real.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clipped_share", "policy_loss", "value_loss"]


def policy_loss(log_ratios_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: float) -> Tensor:
    """Σ −min(ρ A, clip(ρ, 1 ± ε) A), equation 7; ``log_ratios_BT`` is log ρ = log π − log π_old of each token."""
    # Padding is taken out before the exponential: its garbage could overflow, and 0 times infinity is no number.
    ratios_BT = log_ratios_BT.where(mask_BT, 0).exp()
    gain_BT = torch.minimum(ratios_BT * advantages_BT, ratios_BT.clamp(1 - clip, 1 + clip) * advantages_BT)
    return -gain_BT.where(mask_BT, 0).sum()


def clipped_share(log_ratios_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: float) -> Tensor:
    """The share of tokens that the clip has taken the gradient from."""
    ratios_BT = log_ratios_BT.where(mask_BT, 0).exp()
    cut_BT = torch.where(advantages_BT > 0, ratios_BT > 1 + clip, ratios_BT < 1 - clip)
    return (cut_BT & mask_BT & (advantages_BT != 0)).sum() / mask_BT.sum()


def value_loss(
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip: float | None
) -> Tensor:
    """Σ ½ max((V − R)², (V_clipped − R)²), where V_clipped is within ``clip`` of the value before the step; for None,
    Σ ½ (V − R)²."""
    errors_BT = (values_BT - returns_BT).square()
    if clip is not None:
        near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
        errors_BT = torch.maximum(errors_BT, (near_BT - returns_BT).square())
    return errors_BT.where(mask_BT, 0).sum() / 2
