"""Each architecture's size dial, parameter counts and FLOPs, free of any framework.

An architecture is a module-like object following :class:`Architecture`. An outside package adds one through the entry
point group ``scaling.architectures``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Protocol

from scaling.architectures import gpt2, llama, lstm, mamba2
from scaling.errors import UserError
from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = ["Architecture", "check", "family_of", "get", "shapes_around", "total_params", "training_flops"]

_BUILT_IN: dict[str, Architecture] = {"llama": llama, "gpt2": gpt2, "lstm": lstm, "mamba2": mamba2}


class Architecture(Protocol):
    """What the planner and the accounts need to know of an architecture."""

    def check(self, shape: ModelShape) -> None:
        """``ValueError`` with the field and its value where no model can have ``shape``."""

    def shape_for(self, params_total: float, *, vocabulary: int, context: int, tied: bool = True) -> ModelShape:
        """The shape whose total parameters come nearest to ``params_total``: one dial, everything else derived."""

    def count_parameters(self, shape: ModelShape) -> ParameterCounts:
        """Exact parameters under the three conventions."""

    def forward_flops(self, shape: ModelShape, attended: int) -> ForwardFlops:
        """Exact FLOPs of one token's forward pass by part, while it attends to ``attended`` tokens as in decoding."""

    def training_flops_per_token(self, shape: ModelShape) -> int:
        """Exact FLOPs of one training token, forward and backward, at the shape's context."""

    def inference_flops_per_token(self, shape: ModelShape) -> int:
        """Exact FLOPs of one token of the forward pass, at the shape's context."""


def get(name: str) -> Architecture:
    """The architecture called ``name``; :class:`UserError` if there is none."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    outside = {point.name: point for point in entry_points(group="scaling.architectures")}
    if name in outside:
        loaded: Architecture = outside[name].load()
        return loaded
    known = ", ".join(sorted([*_BUILT_IN, *outside]))
    raise UserError(f"architecture {name!r} is not known; choose one of: {known}")


def check(shape: ModelShape) -> None:
    """``ValueError`` if ``shape`` is none that its architecture can have; an outside package's are its own to check."""
    if shape.architecture in _BUILT_IN:
        _BUILT_IN[shape.architecture].check(shape)


def family_of(name: str) -> str:
    """transformer, recurrent or state-space; an outside architecture that states no ``FAMILY`` is one of its own."""
    return str(getattr(get(name), "FAMILY", name))


def shapes_around(shape: ModelShape, least: float, most: float, ratio: float) -> Iterator[ModelShape]:
    """Shapes like ``shape`` of ``least`` to ``most`` total parameters, their width over depth within a factor ``ratio``
    of the dial's; none where the architecture has no dial for that (a function ``shapes_within``)."""
    within = getattr(get(shape.architecture), "shapes_within", None)
    if within is not None:
        like = {"vocabulary": shape.vocabulary, "context": shape.context, "tied": shape.tied}
        yield from within(least, most, **like, ratio=ratio)


def total_params(shape: ModelShape) -> int:
    """Every stored parameter of ``shape``, counted once."""
    return get(shape.architecture).count_parameters(shape).total


def training_flops(shape: ModelShape, tokens: float) -> float:
    """Exact FLOPs of training ``shape`` on ``tokens``; a float, since 64-bit integers overflow at the large end."""
    return float(tokens) * get(shape.architecture).training_flops_per_token(shape)
