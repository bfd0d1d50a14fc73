"""silu(gate) * up in one pass, and its gradient in another.

Shapes: ... tokens, F feed-forward width, G = 2F gate and up side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.models.kernels.library import call

__all__ = ["swiglu"]


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up_G: Tensor) -> Tensor:
        out_F = gate_up_G.new_empty(*gate_up_G.shape[:-1], gate_up_G.shape[-1] // 2)
        ctx.sizes = out_F.numel() // out_F.shape[-1], out_F.shape[-1]
        call("swiglu_forward", gate_up_G.dtype, gate_up_G, out_F, *ctx.sizes)
        ctx.save_for_backward(gate_up_G)
        return out_F

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (gate_up_G,) = ctx.saved_tensors
        grad_G = torch.empty_like(gate_up_G)
        call("swiglu_backward", gate_up_G.dtype, gate_up_G, grad_outputs[0].contiguous(), grad_G, *ctx.sizes)
        return grad_G


def swiglu(gate_up_G: Tensor) -> Tensor:
    """silu of the first half of the last dimension, times the second half."""
    out_F: Tensor = _SwiGlu.apply(gate_up_G.contiguous())  # type: ignore[no-untyped-call]
    return out_F
