"""Where a model's scale decides what no fit says: vocabulary, context and head of a Llama without a study."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from scaling import architectures
from scaling.shape import ModelShape

__all__ = ["LARGE_MODEL", "SMALL_VOCABULARY", "llama_at_scale"]

LARGE_MODEL = 1e9
"""From here on a model without a study gets Llama 3's vocabulary and context, and a head of its own."""
SMALL_VOCABULARY = 32_000
LARGE_VOCABULARY, LARGE_CONTEXT, SMALL_CONTEXT = 128_256, 8192, 2048


def llama_at_scale(
    around: float, *, vocabulary: int | None = None, context: int | None = None
) -> Callable[[float], ModelShape]:
    """Llamas by total parameters, with what is usual at ``around`` parameters where nothing is given. The function
    raises ``ValueError`` below the smallest of them."""
    large = around >= LARGE_MODEL
    return partial(
        architectures.get("llama").shape_for,
        vocabulary=vocabulary or (LARGE_VOCABULARY if large else SMALL_VOCABULARY),
        context=context or (LARGE_CONTEXT if large else SMALL_CONTEXT),
        tied=not large,
    )
