"""The output head and its cross-entropy in one: the logits of the whole batch are never held.

A small model spends most of its step on memory traffic of logits, a large vocabulary most of its memory. So both passes
are done slice by slice while a slice's logits are in cache: the gradient of the cross-entropy with respect to logits is
softmax - onehot, known as soon as the loss is (the same idea as in Liger-Kernel, 2410.10989).

Shapes: N tokens, S tokens of a slice, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.models import kernels

__all__ = ["linear_cross_entropy", "token_nats"]

SLICE_LOGITS_CPU = 2**18
"""Logits a slice holds on a CPU: 1 MB in fp32, about a core's second-level cache."""
SLICE_LOGITS_KERNEL = 2**20
"""The same where our kernel reads each row but once: larger products, and fewer sums into the weight's gradient."""
SLICE_LOGITS_CUDA = 2**27
MIN_SLICE_TOKENS = 64


def _slice_tokens(w_VD: Tensor) -> int:
    logits = SLICE_LOGITS_CUDA if w_VD.is_cuda else SLICE_LOGITS_KERNEL if kernels.in_use(w_VD) else SLICE_LOGITS_CPU
    return max(MIN_SLICE_TOKENS, logits // w_VD.shape[0])


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_ND: Tensor, w_VD: Tensor, y_N: Tensor, dtype: torch.dtype) -> Tensor:
        N = y_N.numel()
        w_cast_VD = w_VD.to(dtype)
        grad_h_ND = torch.empty_like(h_ND)
        grad_w_VD = torch.zeros_like(w_VD, dtype=torch.float32)
        nats = torch.zeros((), dtype=torch.float32, device=h_ND.device)
        step = _slice_tokens(w_VD)
        for h_SD, y_S, grad_h_SD in zip(*(torch.split(each, step) for each in (h_ND, y_N, grad_h_ND)), strict=True):
            h_SD = h_SD.to(dtype)
            logits_SV = h_SD @ w_cast_VD.T
            fused = kernels.cross_entropy if kernels.in_use(logits_SV) else _cross_entropy
            nats_S, grad_SV = fused(logits_SV, y_S, 1.0 / N)
            nats += nats_S
            grad_h_SD.copy_(grad_SV @ w_cast_VD)
            grad_w_VD += grad_SV.T @ h_SD
        ctx.save_for_backward(grad_h_ND, grad_w_VD.to(w_VD.dtype))
        return nats / N

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_h_ND, grad_w_VD = ctx.saved_tensors
        return grad_h_ND * grad_outputs[0], grad_w_VD * grad_outputs[0], None, None


def _cross_entropy(logits_SV: Tensor, y_S: Tensor, scale: float) -> tuple[Tensor | float, Tensor]:
    """The sum of a slice's -ln p, fp32, and its gradient times ``scale`` in the precision of the logits."""
    y_S1 = y_S[:, None]
    log_p_SV = torch.log_softmax(logits_SV.float(), dim=-1)
    nats = -log_p_SV.gather(1, y_S1).sum()
    grad_SV = log_p_SV.exp_()
    grad_SV.scatter_add_(1, y_S1, grad_SV.new_full((), -1.0).expand_as(y_S1))
    return nats, grad_SV.mul_(scale).to(logits_SV.dtype)


def linear_cross_entropy(h_ND: Tensor, w_VD: Tensor, y_N: Tensor) -> Tensor:
    """Mean -ln softmax(h w^T)[y] over the N tokens, an fp32 scalar; its products run in autocast's precision if on."""
    kind = h_ND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else h_ND.dtype
    with torch.autocast(kind, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(h_ND, w_VD, y_N, dtype)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def token_nats(h_ND: Tensor, w_VD: Tensor, y_N: Tensor) -> Tensor:
    """-ln softmax(h w^T)[y] of each token, fp32 (N,); without gradients."""
    nats_N = torch.empty(y_N.shape, dtype=torch.float32, device=h_ND.device)
    step = _slice_tokens(w_VD)
    for h_SD, y_S, nats_S in zip(*(torch.split(each, step) for each in (h_ND, y_N, nats_N)), strict=True):
        log_p_SV = torch.log_softmax((h_SD @ w_VD.to(h_SD.dtype).T).float(), dim=-1)
        nats_S.copy_(-log_p_SV.gather(1, y_S[:, None]).squeeze(1))
    return nats_N
