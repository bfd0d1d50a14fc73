"""nanoGPT's model and training step, written out anew from its published architecture, for comparison only.

GPT-2 without biases, as karpathy/nanoGPT trains it: learned positions, LayerNorm before each block, GELU feed-forward
of four widths, head tied to the embedding, loss through the full logits. On a CPU its README runs it eager in fp32
(``--device=cpu --compile=False --dropout=0.0``; ``ctx`` is a null context there), with gradients clipped to 1.0 and
AdamW that is fused on CUDA alone.

Shapes: B sequences, T positions, D width, H heads, E head width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaling.shape import ModelShape

__all__ = ["NanoGPT", "configure_optimizer"]


class LayerNorm(nn.Module):
    """With a scale and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return F.layer_norm(x_BTD, self.weight.shape, self.weight, None, 1e-5)


class CausalSelfAttention(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.c_attn = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.c_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        q_BTD, k_BTD, v_BTD = self.c_attn(x_BTD).split(D, dim=2)
        q_BHTE, k_BHTE, v_BHTE = (
            each.view(B, T, self.heads, D // self.heads).transpose(1, 2) for each in (q_BTD, k_BTD, v_BTD)
        )
        y_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE, is_causal=True)
        out_BTD: Tensor = self.c_proj(y_BHTE.transpose(1, 2).contiguous().view(B, T, D))
        return out_BTD


class Block(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(shape.width)
        self.attn = CausalSelfAttention(shape)
        self.ln_2 = LayerNorm(shape.width)
        self.c_fc = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.c_proj = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD))
        out_BTD: Tensor = x_BTD + self.c_proj(F.gelu(self.c_fc(self.ln_2(x_BTD))))
        return out_BTD


class NanoGPT(nn.Module):
    """Of the same width, layers, heads, vocabulary and context as ``shape``; called with targets, gives the loss."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.wpe = nn.Embedding(shape.context, shape.width)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = LayerNorm(shape.width)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith("c_proj.weight")
                nn.init.normal_(parameter, 0.0, 0.02 / (math.sqrt(2 * shape.layers) if residual else 1.0))

    def forward(self, x_BT: Tensor, y_BT: Tensor) -> Tensor:
        x_BTD = self.wte(x_BT) + self.wpe(torch.arange(x_BT.shape[1], device=x_BT.device))
        for block in self.h:
            x_BTD = block(x_BTD)
        logits_BTV = self.lm_head(self.ln_f(x_BTD))
        return F.cross_entropy(logits_BTV.view(-1, logits_BTV.shape[-1]), y_BT.view(-1), ignore_index=-1)


def configure_optimizer(model: nn.Module, rate: float = 1e-3) -> torch.optim.AdamW:
    """As nanoGPT's ``configure_optimizers`` on a CPU: matrices decayed, the rest not, no fused kernel."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
