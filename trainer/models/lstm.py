"""The LSTM (Hochreiter & Schmidhuber 1997), the classical model that transformers are compared with. Notable choices:

- A norm before each layer and a residual around it: 0.27 nats better after the same short run than LSTMs simply stacked
  (docs/decisions.md). Each layer's state is as wide as the residual stream, so it adds to it without a projection.
- The recurrence is PyTorch's fused kernel (oneDNN's on a CPU, cuDNN on CUDA), 1.7 to 14 times as fast as steps of
  matrix products. It knows nothing but the window: every sequence starts from a zero state.
- It can't be compiled: torch.compile unrolls the recurrence into a step for each token, and works on that for minutes.
- The forget gate starts open, with a bias of one (Gers et al. 2000; Jozefowicz et al. 2015).
- Head tied to the embedding or not, as the shape says. Initial weights as the parametrisation says.

Shapes: B sequences, T positions, D width; gates lie one above another as input, forget, cell, output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from trainer.models.kernels.norm import RMSNorm
from trainer.models.model import LanguageModel

__all__ = ["LSTM"]

NORM_EPS = 1e-5

State = tuple[Tensor, Tensor]
"""Output and cell of the last token, each (1, B, D)."""


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, residual: float) -> None:
        super().__init__()
        self.residual = residual
        self.norm = RMSNorm(shape.width, eps=NORM_EPS)
        self.lstm = nn.LSTM(shape.width, shape.width, batch_first=True)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.after(x_BTD, None)[0]

    def after(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        h_BTD, state = self._recur(self.norm(x_BTD), state)
        return self._add(x_BTD, h_BTD), state

    def _recur(self, x_BTD: Tensor, state: State | None) -> tuple[Tensor, State]:
        fp16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.float16
        if x_BTD.is_cuda or not fp16:
            found: tuple[Tensor, State] = self.lstm(x_BTD, state)
            return found
        with torch.autocast("cpu", enabled=False):  # oneDNN has an LSTM in fp32 and bf16 alone
            return self.lstm(x_BTD.float(), state)  # type: ignore[no-any-return]

    def _add(self, x_BTD: Tensor, h_BTD: Tensor) -> Tensor:
        return x_BTD + (h_BTD if self.residual == 1 else self.residual * h_BTD)


class LSTM(LanguageModel):
    compilable = False

    def __init__(self, shape: ModelShape, parametrisation: Parametrisation | None = None) -> None:
        super().__init__(shape, parametrisation)
        self.layers = nn.ModuleList(Layer(shape, self.scaling.residual) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, eps=NORM_EPS)

    def row_blocks(self) -> Mapping[str, tuple[int, ...]]:
        return {
            f"layers.{layer}.lstm.{name}": (self.shape.width,) * 4
            for layer in range(self.shape.layers)
            for name in ("weight_ih_l0", "weight_hh_l0")
        }

    def start(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
        if ".lstm.bias_" in name:
            parameter.zero_()
            if name.endswith("bias_ih_l0"):
                _, forget_D, _, _ = parameter.chunk(4)
                forget_D.fill_(1.0)
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

    def start_state(self, batch: int) -> list[State | None]:
        """Of each layer; None is zero."""
        return [None] * self.shape.layers

    def hidden_after(self, x_BT: Tensor, state: list[State | None]) -> tuple[Tensor, list[State | None]]:
        x_BTD, after = self.embed_tokens(x_BT), list[State | None]()
        for layer, before in zip(self.layers, state, strict=True):
            assert isinstance(layer, Layer)
            x_BTD, known = layer.after(x_BTD, before)
            after.append(known)
        return self._last(x_BTD), after
