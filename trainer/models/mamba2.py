"""Mamba-2 (Dao & Gu 2405.21060): a state-space model that trains in parallel. Notable choices:

- State-space duality in its chunked form (``trainer.models.state_space_scan``); there is no kernel of ours.
- z, x, B, C and dt are one matrix of rows in that order. A depthwise convolution of four taps and SiLU over x, B and C;
  the output is gated by z before its RMSNorm, as in the released code. RMSNorm before each block and at the end.
- Initial values of the paper: A from -1 to -16, dt log-uniform from 0.001 to 0.1, D one. Matrices as the
  parametrisation says, the one that writes into the residual stream scaled down like a transformer's.
- Step sizes and decays are fp32 under autocast.

Shapes: B sequences, T positions, D width, H heads of P channels (I = H*P inner width), G groups, N state, K convolved
channels (I + 2*G*N), S taps that reach back, U = S + T.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scaling.architectures.mamba2 import CONVOLUTION, chunk_length
from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from trainer.models.kernels.norm import RMSNorm
from trainer.models.model import LanguageModel
from trainer.models.state_space_scan import scan

__all__ = ["Mamba2"]

NORM_EPS = 1e-5
DECAYS = (1.0, 16.0)
STEPS = (1e-3, 1e-1)


@dataclass
class State:
    """Of one layer: the inputs of the convolution's last taps but one, and S."""

    taps_BSK: Tensor
    s_BGNRP: Tensor


class Mixer(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        assert shape.state_width is not None
        self.inner, self.state = shape.ffn_width, shape.state_width
        self.heads, self.groups = shape.heads, shape.kv_heads
        self.chunk = chunk_length(shape.context)
        self.convolved = self.inner + 2 * self.groups * self.state
        self.in_proj = nn.Linear(shape.width, self.inner + self.convolved + self.heads, bias=False)
        self.conv1d = nn.Conv1d(self.convolved, self.convolved, CONVOLUTION, groups=self.convolved)
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.D = nn.Parameter(torch.empty(self.heads))
        self.norm = RMSNorm(self.inner, eps=NORM_EPS)
        self.out_proj = nn.Linear(self.inner, shape.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self._mix(x_BTD, None)[0]

    def after(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        out_BTD, after = self._mix(x_BTD, state)
        assert after is not None
        return out_BTD, after

    def start_state(self, batch: int) -> State:
        like, per_group = self.in_proj.weight, (self.heads // self.groups, self.inner // self.heads)
        return State(
            taps_BSK=like.new_zeros(batch, CONVOLUTION - 1, self.convolved),
            s_BGNRP=like.new_zeros(batch, self.groups, self.state, *per_group),
        )

    def _mix(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        B, T, _ = x_BTD.shape
        z_BTI, xbc_BTK, dt_BTH = torch.split(self.in_proj(x_BTD), [self.inner, self.convolved, self.heads], dim=-1)
        before_BSK = xbc_BTK.new_zeros(B, CONVOLUTION - 1, self.convolved) if state is None else state.taps_BSK
        xbc_BUK = torch.cat([before_BSK, xbc_BTK], dim=1)
        shared = self.groups * self.state
        x_BTI, b_BTM, c_BTM = torch.split(self._convolve(xbc_BUK), [self.inner, shared, shared], dim=-1)
        b_BTGN, c_BTGN = (each.view(B, T, self.groups, self.state) for each in (b_BTM, c_BTM))
        x_BTHP = x_BTI.view(B, T, self.heads, -1)
        dt_BTH = F.softplus(dt_BTH + self.dt_bias)
        log_decay_BTH = dt_BTH * -self.A_log.exp()
        s_BGNRP = None if state is None else state.s_BGNRP
        y_BTHP, s_BGNRP = scan(x_BTHP * dt_BTH[..., None], log_decay_BTH, b_BTGN, c_BTGN, self.chunk, s_BGNRP)
        y_BTI = (y_BTHP + x_BTHP * self.D[:, None]).flatten(-2) * F.silu(z_BTI)
        out_BTD: Tensor = self.out_proj(self._normed(y_BTI))
        if state is None:
            return out_BTD, None
        assert s_BGNRP is not None
        return out_BTD, State(taps_BSK=xbc_BUK[:, T:], s_BGNRP=s_BGNRP)

    def _convolve(self, xbc_BUK: Tensor) -> Tensor:
        """Of each position and the three before it; sums of shifted products, which a CPU is faster at than at a
        depthwise convolution (docs/decisions.md)."""
        T, weight_SK = xbc_BUK.shape[1] - (CONVOLUTION - 1), self.conv1d.weight[:, 0].T
        out_BTK = self.conv1d.bias
        assert out_BTK is not None
        for tap in range(CONVOLUTION):
            out_BTK = torch.addcmul(out_BTK, xbc_BUK[:, tap : tap + T], weight_SK[tap])
        return F.silu(out_BTK)

    def _normed(self, y_BTI: Tensor) -> Tensor:
        """Each group by itself, as in the released code."""
        if self.groups == 1:
            normed_BTI: Tensor = self.norm(y_BTI)
            return normed_BTI
        y_BTGJ = y_BTI.view(*y_BTI.shape[:2], self.groups, -1)
        return F.rms_norm(y_BTGJ, y_BTGJ.shape[-1:], eps=NORM_EPS).flatten(-2) * self.norm.weight


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, residual: float) -> None:
        super().__init__()
        self.residual = residual
        self.norm = RMSNorm(shape.width, eps=NORM_EPS)
        self.mixer = Mixer(shape)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self._add(x_BTD, self.mixer(self.norm(x_BTD)))

    def after(self, x_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        block_BTD, state = self.mixer.after(self.norm(x_BTD), state)
        return self._add(x_BTD, block_BTD), state

    def start_state(self, batch: int) -> State:
        return self.mixer.start_state(batch)

    def _add(self, x_BTD: Tensor, block_BTD: Tensor) -> Tensor:
        return x_BTD + (block_BTD if self.residual == 1 else self.residual * block_BTD)


class Mamba2(LanguageModel):
    residual_writers = ("out_proj.weight",)
    layers_in_half = False  # rates of decay

    def __init__(self, shape: ModelShape, parametrisation: Parametrisation | None = None) -> None:
        super().__init__(shape, parametrisation)
        self.layers = nn.ModuleList(Layer(shape, self.scaling.residual) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, eps=NORM_EPS)

    def row_blocks(self) -> Mapping[str, tuple[int, ...]]:
        assert self.shape.state_width is not None
        inner, shared = self.shape.ffn_width, self.shape.kv_heads * self.shape.state_width
        rows = (inner, inner, shared, shared, self.shape.heads)
        return {f"layers.{layer}.mixer.in_proj.weight": rows for layer in range(self.shape.layers)}

    def start(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
        if name.endswith("A_log"):
            parameter.uniform_(*DECAYS, generator=generator).log_()
        elif name.endswith("dt_bias"):
            low, high = STEPS
            dt_H = parameter.uniform_(math.log(low), math.log(high), generator=generator).exp_()
            parameter.copy_(dt_H + torch.log(-torch.expm1(-dt_H)))  # softplus of it is dt
        elif ".conv1d." in name:
            bound = CONVOLUTION**-0.5
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            super().start(name, parameter, generator)

    def hidden(self, x_BT: Tensor) -> Tensor:
        x_BTD = self.embed_tokens(x_BT)
        for layer in self.layers:
            x_BTD = self.through(layer, x_BTD)
        return self._last(x_BTD)

    def _last(self, x_BTD: Tensor) -> Tensor:
        h_BTD: Tensor = self.norm(x_BTD)
        return h_BTD if self.scaling.logits == 1 else h_BTD * self.scaling.logits

    def start_state(self, batch: int) -> list[State]:
        """Of each layer."""
        return [layer.start_state(batch) for layer in self.layers if isinstance(layer, Layer)]

    def hidden_after(self, x_BT: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        x_BTD, after = self.embed_tokens(x_BT), []
        for layer, before in zip(self.layers, state, strict=True):
            assert isinstance(layer, Layer)
            x_BTD, known = layer.after(x_BTD, before)
            after.append(known)
        return self._last(x_BTD), after
