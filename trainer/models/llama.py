"""The Llama-style decoder. Notable choices:

- RMSNorm before each block and at the end, with a learned scale; no biases anywhere.
- Rotary positions (Su et al. 2104.09864), base 10,000, halves rotated against each other as in Llama's released code.
- SwiGLU feed-forward (Shazeer 2002.05202); its gate and up matrices are one matrix, and so are query, key and value:
  fewer and larger products. Rows are stacked in that order, so a split along rows gives the usual separate matrices.
- Causal attention over the whole context through PyTorch's fused kernel; grouped queries where kv_heads < heads.
- Head tied to the embedding or not, as the shape says; logits in fp32.
- Initial weights as the parametrisation says: by default normal with standard deviation 1/sqrt(fan-in), the two
  matrices that write into the residual stream scaled down by sqrt(2 layers) (GPT-2's scheme made width-aware).

Shapes: B sequences, T positions, D width, H query heads, K key-value heads, E head width, F feed-forward width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from trainer.models import kernels
from trainer.models.kernels.attention import attention
from trainer.models.kernels.norm import RMSNorm, add_rms_norm
from trainer.models.kernels.swiglu import swiglu
from trainer.models.model import LanguageModel
from trainer.models.parametrisation import Scaling

__all__ = ["Llama"]

ROTARY_BASE = 10_000.0
NORM_EPS = 1e-5


def rotary_tables(context: int, head_width: int) -> tuple[Tensor, Tensor]:
    """(cos_TE, sin_TE) in fp32, both halves of E alike; the first half of sin is negated for :func:`rotate`."""
    frequency = ROTARY_BASE ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angle = torch.outer(torch.arange(context, dtype=torch.float32), frequency)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x_BHTE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    swapped_BHTE = x_BHTE.roll(x_BHTE.shape[-1] // 2, dims=-1)
    return x_BHTE * cos_TE + swapped_BHTE * sin_TE


def attend(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
    """Causal attention. On a CPU always in fp32: its kernel's backward takes five times as long in bf16 (measured)."""
    grouped = q_BHTE.shape[1] != k_BKTE.shape[1]
    if q_BHTE.is_cuda:
        return F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=grouped)
    with torch.autocast("cpu", enabled=False):
        q_BHTE, k_BKTE, v_BKTE = q_BHTE.float(), k_BKTE.float(), v_BKTE.float()
        return F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=grouped)


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class KeyValueCache:
    """Rotated keys and values of the tokens so far, one pair a layer, in room for the whole context (S positions)."""

    def __init__(self, shape: ModelShape, batch: int, like: Tensor) -> None:
        room = (shape.layers, batch, shape.kv_heads, shape.context, shape.head_width)
        self.length = 0
        self._k_LBKSE, self._v_LBKSE = like.new_zeros(room), like.new_zeros(room)

    def attend(self, layer: int) -> Attend:
        """What :func:`attend` is for tokens that follow the cached ones; it caches theirs."""

        def attend_from(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
            T, end = q_BHTE.shape[2], self.length + q_BHTE.shape[2]
            k_BKSE, v_BKSE = self._k_LBKSE[layer, :, :, :end], self._v_LBKSE[layer, :, :, :end]
            k_BKSE[:, :, self.length :] = k_BKTE
            v_BKSE[:, :, self.length :] = v_BKTE
            seen_TS = torch.ones(T, end, dtype=torch.bool, device=q_BHTE.device).tril(self.length)
            grouped = q_BHTE.shape[1] != k_BKTE.shape[1]
            return F.scaled_dot_product_attention(q_BHTE, k_BKSE, v_BKSE, attn_mask=seen_TS, enable_gqa=grouped)

        return attend_from


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, scores: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = shape.heads, shape.kv_heads, shape.head_width
        self.scores = scores
        self.qkv_proj = nn.Linear(shape.width, (shape.heads + 2 * shape.kv_heads) * shape.head_width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor, cached: Attend | None = None) -> Tensor:
        B, T, _ = x_BTD.shape
        H, K = self.heads, self.kv_heads
        qkv_BTA = self.qkv_proj(x_BTD)
        if cached is None and kernels.in_use(qkv_BTA):
            mixed_BTD = attention(qkv_BTA, H, K, cos_TE, sin_TE, self.scores * self.head_width**-0.5)
            return self.o_proj(mixed_BTD)  # type: ignore[no-any-return]
        qkv_BATE = qkv_BTA.view(B, T, H + 2 * K, self.head_width).transpose(1, 2)
        qk_BATE, v_BKTE = torch.split(qkv_BATE, [H + K, K], dim=1)
        q_BHTE, k_BKTE = torch.split(rotate(qk_BATE, cos_TE, sin_TE), [H, K], dim=1)
        q_BHTE = q_BHTE if self.scores == 1 else q_BHTE * self.scores
        mixed_BHTE = (cached or attend)(q_BHTE, k_BKTE, v_BKTE)
        out_BTD: Tensor = self.o_proj(mixed_BHTE.transpose(1, 2).reshape(B, T, -1))
        return out_BTD


class FeedForward(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(shape.width, 2 * shape.ffn_width, bias=False)
        self.down_proj = nn.Linear(shape.ffn_width, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_up_BTG = self.gate_up_proj(x_BTD)
        if kernels.in_use(gate_up_BTG):
            inner_BTF = swiglu(gate_up_BTG)
        else:
            gate_BTF, up_BTF = gate_up_BTG.chunk(2, dim=-1)
            inner_BTF = F.silu(gate_BTF) * up_BTF
        out_BTD: Tensor = self.down_proj(inner_BTF)
        return out_BTD


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, scaling: Scaling) -> None:
        super().__init__()
        self.residual = scaling.residual
        self.input_layernorm = RMSNorm(shape.width, eps=NORM_EPS)
        self.self_attn = Attention(shape, scaling.scores)
        self.post_attention_layernorm = RMSNorm(shape.width, eps=NORM_EPS)
        self.mlp = FeedForward(shape)

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor, cached: Attend | None = None) -> Tensor:
        attended_BTD = self.self_attn(self.input_layernorm(x_BTD), cos_TE, sin_TE, cached)
        if kernels.in_use(x_BTD):
            x_BTD, normed_BTD = add_rms_norm(x_BTD, attended_BTD, self.residual, self.post_attention_layernorm)
        else:
            x_BTD = self._add(x_BTD, attended_BTD)
            normed_BTD = self.post_attention_layernorm(x_BTD)
        return self._add(x_BTD, self.mlp(normed_BTD))

    def _add(self, x_BTD: Tensor, block_BTD: Tensor) -> Tensor:
        return x_BTD + (block_BTD if self.residual == 1 else self.residual * block_BTD)


class Llama(LanguageModel):
    residual_writers = ("o_proj.weight", "down_proj.weight")

    cos_TE: Tensor
    sin_TE: Tensor

    def __init__(self, shape: ModelShape, parametrisation: Parametrisation | None = None) -> None:
        super().__init__(shape, parametrisation)
        self.layers = nn.ModuleList(Layer(shape, self.scaling) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, eps=NORM_EPS)
        cos_TE, sin_TE = rotary_tables(shape.context, shape.head_width)
        self.register_buffer("cos_TE", cos_TE, persistent=False)
        self.register_buffer("sin_TE", sin_TE, persistent=False)

    def row_blocks(self) -> Mapping[str, tuple[int, ...]]:
        kv_width = self.shape.kv_heads * self.shape.head_width
        blocks: dict[str, tuple[int, ...]] = {}
        for layer in range(self.shape.layers):
            blocks[f"layers.{layer}.self_attn.qkv_proj.weight"] = (self.shape.width, kv_width, kv_width)
            blocks[f"layers.{layer}.mlp.gate_up_proj.weight"] = (self.shape.ffn_width, self.shape.ffn_width)
        return blocks

    def hidden(self, x_BT: Tensor) -> Tensor:
        T = x_BT.shape[1]
        cos_TE, sin_TE = self.cos_TE[:T], self.sin_TE[:T]
        x_BTD = self.embed_tokens(x_BT)
        for layer in self.layers:
            x_BTD = self.through(layer, x_BTD, cos_TE, sin_TE)
        return self._last(x_BTD)

    def _last(self, x_BTD: Tensor) -> Tensor:
        h_BTD: Tensor = self.norm(x_BTD)
        return h_BTD if self.scaling.logits == 1 else h_BTD * self.scaling.logits

    def start_state(self, batch: int) -> KeyValueCache:
        return KeyValueCache(self.shape, batch, like=self.embed_tokens.weight)

    def hidden_after(self, x_BT: Tensor, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        end = state.length + x_BT.shape[1]
        cos_TE, sin_TE = self.cos_TE[state.length : end], self.sin_TE[state.length : end]
        x_BTD = self.embed_tokens(x_BT)
        for number, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, cos_TE, sin_TE, state.attend(number))
        state.length = end
        return self._last(x_BTD), state
