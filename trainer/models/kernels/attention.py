"""Causal attention with its rotation in one, from the projection's output to the next one's input.

Shapes: B sequences, T positions, A = H + 2K heads of queries, keys and values side by side, E head width, D = H E.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.models.kernels.library import call

__all__ = ["attention"]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv_BTAE: Tensor,
        cos_TE: Tensor | None,
        sin_TE: Tensor | None,
        heads: int,
        kv_heads: int,
        scale: float,
    ) -> Tensor:
        B, T, _, E = qkv_BTAE.shape
        ctx.sizes = scale, B, T, heads, kv_heads, E
        out_BTD = qkv_BTAE.new_empty(B, T, heads * E)
        rows_BHT2 = qkv_BTAE.new_empty(B, heads, T, 2, dtype=torch.float32)
        call("attention_forward", qkv_BTAE.dtype, qkv_BTAE, cos_TE, sin_TE, out_BTD, rows_BHT2, *ctx.sizes)
        ctx.save_for_backward(qkv_BTAE, cos_TE, sin_TE, out_BTD, rows_BHT2)
        return out_BTD

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        qkv_BTAE = ctx.saved_tensors[0]
        grad_BTAE = torch.empty_like(qkv_BTAE)
        grad_out_BTD = grad_outputs[0].contiguous()
        call("attention_backward", qkv_BTAE.dtype, *ctx.saved_tensors, grad_out_BTD, grad_BTAE, *ctx.sizes)
        return grad_BTAE, None, None, None, None, None


def attention(
    qkv_BTA: Tensor, heads: int, kv_heads: int, cos_TE: Tensor | None, sin_TE: Tensor | None, scale: float
) -> Tensor:
    """(B, T, D) of queries, keys and values (B, T, (H + 2K) E); the first two rotated if there are tables.

    scale: what scores are multiplied with before the softmax.
    """
    B, T, _ = qkv_BTA.shape
    qkv_BTAE = qkv_BTA.contiguous().view(B, T, heads + 2 * kv_heads, -1)
    out_BTD: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        qkv_BTAE, cos_TE, sin_TE, heads, kv_heads, scale
    )
    return out_BTD
