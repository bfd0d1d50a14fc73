"""How initial weights, learning rates and multipliers follow a model's shape.

Written with m = width / base width and l = layers / base layers; factors are with respect to the base shape, where
every parametrisation is the standard one:

| | standard | mup (2203.03466, table 8) | completep (2505.01618, table 1, alpha = 1) |
|---|---|---|---|
| embedding's deviation | width^-1/2 | base width^-1/2 | base width^-1/2 |
| matrix's deviation | fan-in^-1/2 | fan-in^-1/2 | fan-in^-1/2 |
| that of one that writes into the residual stream, times | (2 layers)^-1/2 | (2 layers)^-1/2 | (2 base layers)^-1/2 |
| head's deviation, if it is not tied | width^-1/2 | base width^-1/2 | base width^-1/2 |
| logits | 1 | 1/m | 1/m |
| what a block adds | 1 | 1 | 1/l |
| matrix's learning rate, AdamW (Muon) | 1 | 1/m (m^-1/2) | 1/m (m^-1/2) |
| matrix's decay | 1 | m (m^1/2) | m (m^1/2) |
| AdamW's eps, in layers (the rest) | 1 | 1/m (1/m) | 1/(m l) (1/m) |
| attention scores, E head width, times | E^-1/2 | (base E)^1/2 / E | (base E)^1/2 / E |

A decay factor undoes its learning rate's, since torch multiplies the two: a weight is forgotten equally fast at every
width. eps follows the gradient's size. Muon's update has a spectral norm of its root mean square times sqrt(width),
AdamW's of that times width: hence the square roots, for matrices whose sides both follow the width (2310.17813).
Queries and keys come to agree, so their products grow with the head width, not with its root; where no base head width
is given it is the shape's own, and nothing changes. Embedding and head have the same factors, so tying them is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape

__all__ = ["Role", "Scaling"]

Role = Literal["embedding", "matrix", "residual", "head", "vector", "layer vector"]
"""What a parameter does: look-up of tokens or positions; a matrix between layers; such a matrix that writes into the
residual stream; the output head if it is not the embedding; everything one-dimensional or element-wise, outside of
layers and in them."""


@dataclass(frozen=True)
class Scaling:
    """The table above for one shape."""

    shape: ModelShape
    parametrisation: Parametrisation

    @property
    def _width_ratio(self) -> float:
        return self.shape.width / (self.parametrisation.base_width or self.shape.width)

    @property
    def _depth_ratio(self) -> float:
        return self.shape.layers / (self.parametrisation.base_layers or self.shape.layers)

    @property
    def logits(self) -> float:
        """Multiplies the logits."""
        return 1 / self._width_ratio

    @property
    def residual(self) -> float:
        """Multiplies what a block adds to the residual stream."""
        return 1 / self._depth_ratio

    @property
    def scores(self) -> float:
        """Multiplies attention scores beyond 1/sqrt(head width)."""
        base = self.parametrisation.base_head_width or self.shape.head_width
        return float((base / self.shape.head_width) ** 0.5)

    def deviation(self, role: Role, fan_in: int) -> float:
        """Standard deviation of a parameter's initial weights; ``fan_in`` is of no account for embedding and head."""
        if role in ("embedding", "head"):
            return float((self.parametrisation.base_width or self.shape.width) ** -0.5)
        if role == "residual":
            layers = self.parametrisation.base_layers or self.shape.layers
            return float((2 * layers * fan_in) ** -0.5)
        return float(fan_in**-0.5)

    def rate(self, role: Role, *, muon: bool = False) -> float:
        """Factor of a parameter's learning rate."""
        if role not in ("matrix", "residual"):
            return 1.0
        factor = self.parametrisation.matrix_rate(self.shape.width)
        return float(factor**0.5) if muon else factor

    def decay(self, role: Role, *, muon: bool = False) -> float:
        """Factor of a parameter's weight decay."""
        return 1 / self.rate(role, muon=muon)

    def eps(self, role: Role) -> float:
        """Factor of AdamW's eps."""
        in_layer = role in ("matrix", "residual", "layer vector")
        return 1 / (self._width_ratio * (self._depth_ratio if in_layer else 1.0))
