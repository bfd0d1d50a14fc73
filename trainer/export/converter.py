"""What an architecture's export to Hugging Face's layout needs, and which architectures have one."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from torch import Tensor

from scaling.errors import UserError
from trainer.models.model import LanguageModel

__all__ = ["Converter", "converter"]


class Converter(Protocol):
    """A module of these functions, written from our own shapes: transformers is not needed."""

    def config(self, model: LanguageModel) -> dict[str, Any]:
        """``config.json`` but for the ids of tokens: the class and the shape."""

    def tensors(self, model: LanguageModel) -> dict[str, Tensor]:
        """The weights by transformers' names, the factors of the parametrisation worked into them; a tied head is left
        out."""


_BUILT_IN = {name: f"trainer.export.{name}" for name in ("llama", "gpt2", "mamba2")}


def converter(architecture: str) -> Converter:
    """The converter of ``architecture``; :class:`UserError` if Hugging Face has no class for it."""
    if architecture not in _BUILT_IN:
        known = ", ".join(sorted(_BUILT_IN))
        raise UserError(f"architecture {architecture} has no class in transformers, and can't be exported: {known} can")
    return cast(Converter, import_module(_BUILT_IN[architecture]))
