"""What every architecture's torch side is to the loop: a decoder with an embedding, a head, and hidden states between.

Shapes: B sequences, T positions, D width, V vocabulary, N = B*T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from trainer.models.linear_cross_entropy import linear_cross_entropy, token_nats
from trainer.models.parametrisation import Role, Scaling

__all__ = ["LanguageModel"]


class LanguageModel(nn.Module):
    """A decoder of the given shape with uninitialised weights: call :meth:`initialise`, or load a state.

    A subclass builds its layers between ``embed_tokens`` and ``lm_head`` and gives :meth:`hidden`; names of parameters
    decide their :meth:`role`. Biases and whatever else starts at another value than a norm's scale is drawn in
    :meth:`start`.
    """

    residual_writers: tuple[str, ...] = ()
    """Ends of the names of matrices that write into the residual stream."""
    compilable: bool = True
    """Whether torch.compile takes :meth:`hidden` as one graph."""
    layers_in_half: bool = True
    """Whether a layer may be handed its weights in 16 bits under autocast: not if it computes with some in fp32."""
    recompute: bool = False
    """Activations inside a layer are forgotten and computed again in the backward pass (Chen et al. 1604.06174)."""

    def __init__(self, shape: ModelShape, parametrisation: Parametrisation | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.scaling = Scaling(shape, parametrisation or Parametrisation())
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.lm_head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        if shape.tied:
            self.lm_head.weight = self.embed_tokens.weight

    # What an architecture decides

    def hidden(self, x_BT: Tensor) -> Tensor:
        """The normed residual stream after the last layer, (B, T, D), the logits' factor in it; T is the context at
        most."""
        raise NotImplementedError

    def role(self, name: str, parameter: nn.Parameter) -> Role:
        """What the parameter called ``name`` does."""
        if parameter.ndim != 2:
            return "layer vector" if name.startswith("layers.") else "vector"
        if name.startswith("embed_"):
            return "embedding"
        if name.startswith("lm_head"):
            return "head"
        return "residual" if name.endswith(self.residual_writers) else "matrix"

    def row_blocks(self) -> Mapping[str, tuple[int, ...]]:
        """Of each parameter that holds several matrices of its layer one above another, their rows."""
        return {}

    def start(self, name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
        """The initial value of a parameter that is a vector by its role: a norm's scale is one, a bias zero."""
        parameter.fill_(0.0 if name.endswith("bias") else 1.0)

    def start_state(self, batch: int) -> Any:
        """What the model knows of ``batch`` sequences before their first token, for :meth:`hidden_after`: keys and
        values, or a recurrent state. On the device and in the precision of the weights."""
        raise NotImplementedError

    def hidden_after(self, x_BT: Tensor, state: Any) -> tuple[Tensor, Any]:
        """:meth:`hidden` of tokens that follow those in ``state``, and the state that knows them too.

        T is 1 or more, and with the tokens in ``state`` the context at most. ``state`` may be changed in place: it is
        not to be used again.
        """
        raise NotImplementedError

    # What is the same for all

    def through(self, layer: nn.Module, *inputs: Tensor) -> Tensor:
        """``layer`` of ``inputs``; every layer of :meth:`hidden` is called by this."""
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
        else:
            out = layer(*inputs)
        return out

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights from ``seed``, in the order of registration and on the CPU: the same on every device."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            role = self.role(name, parameter)
            if role in ("vector", "layer vector"):
                self.start(name, parameter, generator)
            else:
                deviation = self.scaling.deviation(role, parameter.shape[1])
                drawn = torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, deviation, generator=generator)
                parameter.copy_(drawn)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of the token that follows each position; T is the context at most."""
        logits_BTV: Tensor = self.lm_head(self.hidden(x_BT))
        return logits_BTV

    @torch.no_grad()
    def decode(self, x_BT: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits (B, V) of the token that follows the last of ``x_BT``, which follow those in ``state``, and the state
        after them; ``state`` is not to be used again."""
        h_BTD, state = self.hidden_after(x_BT, state)
        logits_BV: Tensor = self.lm_head(h_BTD[:, -1])
        return logits_BV, state

    def token_nats(self, x_BT: Tensor, y_BT: Tensor) -> Tensor:
        """-ln p of each target, fp32, (B, T); without gradients."""
        h_ND = self.hidden(x_BT).flatten(0, 1)
        return token_nats(h_ND, self.lm_head.weight, y_BT.flatten()).view_as(y_BT)

    def loss(self, x_BT: Tensor, y_BT: Tensor, hidden: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Mean nats a token, fp32 scalar; ``hidden`` may be a compiled :meth:`hidden`."""
        h_ND = (hidden or self.hidden)(x_BT).flatten(0, 1)
        return linear_cross_entropy(h_ND, self.lm_head.weight, y_BT.flatten())
