"""The torch side of each architecture in ``scaling.architectures``, found by the same name.

An outside package adds one through the entry point group ``trainer.models``: a class of
:class:`trainer.models.model.LanguageModel`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from scaling.errors import UserError
from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape

if TYPE_CHECKING:
    from trainer.models.model import LanguageModel

__all__ = ["build", "model_class"]

_BUILT_IN = {
    "llama": ("trainer.models.llama", "Llama"),
    "gpt2": ("trainer.models.gpt2", "GPT2"),
    "lstm": ("trainer.models.lstm", "LSTM"),
    "mamba2": ("trainer.models.mamba2", "Mamba2"),
}


def model_class(architecture: str) -> type[LanguageModel]:
    """The model called ``architecture``; :class:`UserError` if there is none that can be trained."""
    if architecture in _BUILT_IN:
        module, name = _BUILT_IN[architecture]
        found: type[LanguageModel] = getattr(import_module(module), name)
        return found
    outside = {point.name: point for point in entry_points(group="trainer.models")}
    if architecture in outside:
        loaded: type[LanguageModel] = outside[architecture].load()
        return loaded
    known = ", ".join(sorted([*_BUILT_IN, *outside]))
    raise UserError(f"shape.architecture {architecture!r} can't be trained here: use one of {known}")


def build(shape: ModelShape, parametrisation: Parametrisation | None = None) -> LanguageModel:
    """A model of ``shape`` with uninitialised weights."""
    return model_class(shape.architecture)(shape, parametrisation)
