"""AdamW with decoupled weight decay (Loshchilov & Hutter 1711.05101) on the layers' matrices.

Norm scales are not decayed, being one-dimensional; nor is the embedding, tied or not: a row is touched only when its
token occurs, so decay would shrink the rare ones fastest (as in OLMo 2, 2501.00656). An untied head is decayed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from scaling.run_spec import OptimizerSpec

__all__ = ["build_optimizer", "clip_gradients"]

# Kept out of division by zero; the same guard as torch.nn.utils.clip_grad_norm_.
_NORM_EPS = 1e-6


def build_optimizer(model: nn.Module, spec: OptimizerSpec) -> torch.optim.AdamW:
    """AdamW over ``model``'s parameters in two groups, decayed and not; the fused kernel (CPU and CUDA have one)."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=True)


def clip_gradients(parameters: Iterable[nn.Parameter], largest_norm: float) -> Tensor:
    """Scale all gradients to a global norm of at most ``largest_norm``; returns the norm before, a scalar tensor.

    A norm that is not finite is returned as it is; the caller stops the run.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (largest_norm / (norm + _NORM_EPS)).clamp(max=1.0))
    return norm
