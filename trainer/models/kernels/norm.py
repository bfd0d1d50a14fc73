"""Root-mean-square norm, with the addition to the residual stream before it, into the precision of the next product.

Shapes: ... tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.models.kernels.library import call, compute_dtype, in_use

__all__ = ["RMSNorm", "add_rms_norm"]


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_D: Tensor, block_D: Tensor, factor: float, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        sum_D, normed_D, inverse = torch.empty_like(x_D), torch.empty_like(block_D), x_D.new_empty(x_D.shape[:-1])
        sizes = inverse.numel(), x_D.shape[-1]
        dtype = block_D.dtype
        call("norm_forward", dtype, x_D, block_D, factor, weight_D, eps, sum_D, normed_D, inverse, *sizes)
        ctx.save_for_backward(sum_D, weight_D, inverse)
        ctx.factor, ctx.sizes, ctx.dtype = factor, sizes, dtype
        return sum_D, normed_D

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, Tensor, None]:
        grad_sum_D, grad_normed_D = (grad.contiguous() for grad in grad_outputs)
        sum_D, weight_D, _ = ctx.saved_tensors
        grad_x_D, grad_weight_D = torch.empty_like(sum_D), torch.empty_like(weight_D)
        grad_block_D = torch.empty_like(grad_normed_D)
        call(
            "norm_backward", ctx.dtype, grad_sum_D, grad_normed_D, *ctx.saved_tensors, ctx.factor,
            grad_x_D, grad_block_D, grad_weight_D, *ctx.sizes,
        )  # fmt: skip
        return grad_x_D, grad_block_D, None, grad_weight_D, None


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_D: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        normed_D, inverse = torch.empty_like(x_D, dtype=dtype), x_D.new_empty(x_D.shape[:-1])
        sizes = inverse.numel(), x_D.shape[-1]
        call("norm_forward", dtype, x_D, None, 1.0, weight_D, eps, None, normed_D, inverse, *sizes)
        ctx.save_for_backward(x_D, weight_D, inverse)
        ctx.sizes, ctx.dtype = sizes, dtype
        return normed_D

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_D, weight_D, _ = ctx.saved_tensors
        grad_x_D, grad_weight_D = torch.empty_like(x_D), torch.empty_like(weight_D)
        call(
            "norm_backward", ctx.dtype, None, grad_outputs[0].contiguous(), *ctx.saved_tensors, 1.0,
            grad_x_D, None, grad_weight_D, *ctx.sizes,
        )  # fmt: skip
        return grad_x_D, grad_weight_D, None, None


class RMSNorm(nn.RMSNorm):
    """PyTorch's; where the kernels are in use its output has the precision that matrix products have there."""

    def forward(self, x_D: Tensor) -> Tensor:
        if not in_use(x_D):
            return super().forward(x_D)
        normed_D: Tensor = _Norm.apply(  # type: ignore[no-untyped-call]
            x_D.contiguous(), self.weight, self.eps, compute_dtype(x_D)
        )
        return normed_D


def add_rms_norm(x_D: Tensor, block_D: Tensor, factor: float, norm: nn.RMSNorm) -> tuple[Tensor, Tensor]:
    """x + factor * block, fp32, and its norm in the precision of ``block_D``; where the kernels are in use."""
    both: tuple[Tensor, Tensor] = _AddNorm.apply(  # type: ignore[no-untyped-call]
        x_D.contiguous(), block_D.contiguous(), float(factor), norm.weight, norm.eps
    )
    return both
