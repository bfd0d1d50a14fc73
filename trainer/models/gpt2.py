"""The GPT-2-style decoder (Radford et al. 2019). Notable choices:

- LayerNorm with scale and bias before each block and at the end; every matrix of a layer has a bias.
- Learned positions, added to the tokens' embedding; the context is where they end.
- A plain feed-forward block with GELU in its tanh form, as in GPT-2's released code.
- Query, key and value are one matrix, its rows in that order. No dropout: no token is seen twice in a sweep.
- Head tied to the embedding or not, as the shape says, without a bias.
- Initial weights as the parametrisation says, biases zero; by default that is GPT-2's scheme with 1/sqrt(fan-in) for
  its constant 0.02 (the same at a width of 2,500). Positions start half as large as tokens, as in its released code.

Shapes: B sequences, T positions, D width, H heads, E head width, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from trainer.models.llama import Attend, KeyValueCache, attend
from trainer.models.model import LanguageModel
from trainer.models.parametrisation import Scaling

__all__ = ["GPT2"]

NORM_EPS = 1e-5
POSITIONS_OVER_TOKENS = 0.5


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, scores: float) -> None:
        super().__init__()
        self.heads, self.scores = shape.heads, scores
        self.c_attn = nn.Linear(shape.width, 3 * shape.width)
        self.c_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x_BTD: Tensor, attend: Attend) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTE, k_BHTE, v_BHTE = self.c_attn(x_BTD).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed_BHTE = attend(q_BHTE if self.scores == 1 else q_BHTE * self.scores, k_BHTE, v_BHTE)
        out_BTD: Tensor = self.c_proj(mixed_BHTE.transpose(1, 2).reshape(B, T, -1))
        return out_BTD


class FeedForward(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.c_fc = nn.Linear(shape.width, shape.ffn_width)
        self.c_proj = nn.Linear(shape.ffn_width, shape.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out_BTD: Tensor = self.c_proj(F.gelu(self.c_fc(x_BTD), approximate="tanh"))
        return out_BTD


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, scaling: Scaling) -> None:
        super().__init__()
        self.residual = scaling.residual
        self.ln_1 = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.attn = Attention(shape, scaling.scores)
        self.ln_2 = nn.LayerNorm(shape.width, eps=NORM_EPS)
        self.mlp = FeedForward(shape)

    def forward(self, x_BTD: Tensor, attend: Attend = attend) -> Tensor:
        mixed_BTD = self._add(x_BTD, self.attn(self.ln_1(x_BTD), attend))
        return self._add(mixed_BTD, self.mlp(self.ln_2(mixed_BTD)))

    def _add(self, x_BTD: Tensor, block_BTD: Tensor) -> Tensor:
        return x_BTD + (block_BTD if self.residual == 1 else self.residual * block_BTD)


class GPT2(LanguageModel):
    residual_writers = ("c_proj.weight",)

    def __init__(self, shape: ModelShape, parametrisation: Parametrisation | None = None) -> None:
        super().__init__(shape, parametrisation)
        self.embed_positions = nn.Embedding(shape.context, shape.width)
        self.layers = nn.ModuleList(Layer(shape, self.scaling) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, eps=NORM_EPS)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        super().initialise(seed)
        self.embed_positions.weight.mul_(POSITIONS_OVER_TOKENS)

    def row_blocks(self) -> Mapping[str, tuple[int, ...]]:
        return {f"layers.{layer}.attn.c_attn.weight": (self.shape.width,) * 3 for layer in range(self.shape.layers)}

    def hidden(self, x_BT: Tensor) -> Tensor:
        x_BTD = self._embed(x_BT, 0)
        for layer in self.layers:
            x_BTD = self.through(layer, x_BTD)
        return self._last(x_BTD)

    def _embed(self, x_BT: Tensor, first: int) -> Tensor:
        x_BTD: Tensor = self.embed_tokens(x_BT)
        return x_BTD + self.embed_positions.weight[first : first + x_BT.shape[1]]

    def _last(self, x_BTD: Tensor) -> Tensor:
        h_BTD: Tensor = self.norm(x_BTD)
        return h_BTD if self.scaling.logits == 1 else h_BTD * self.scaling.logits

    def start_state(self, batch: int) -> KeyValueCache:
        return KeyValueCache(self.shape, batch, like=self.embed_tokens.weight)

    def hidden_after(self, x_BT: Tensor, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        x_BTD = self._embed(x_BT, state.length)
        for number, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, state.attend(number))
        state.length += x_BT.shape[1]
        return self._last(x_BTD), state
