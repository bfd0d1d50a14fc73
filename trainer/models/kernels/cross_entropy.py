"""From logits to their cross-entropy and its gradient, which takes the logits' place.

Shapes: S tokens of a slice, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from trainer.models.kernels.library import call

__all__ = ["cross_entropy"]


def cross_entropy(logits_SV: Tensor, y_S: Tensor, scale: float) -> tuple[Tensor | float, Tensor]:
    """The sum of a slice's -ln p, and (softmax - onehot) * scale; the logits are overwritten."""
    S, V = logits_SV.shape
    nats: float = call("cross_entropy", logits_SV.dtype, logits_SV, y_S, scale, S, V)
    return nats, logits_SV
