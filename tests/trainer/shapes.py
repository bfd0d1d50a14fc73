"""Small shapes of every architecture that can be trained, for tests of what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from scaling.shape import ModelShape

SHAPES = {
    "llama": ModelShape(layers=2, width=32, heads=4, kv_heads=2, ffn_width=48, vocabulary=50, context=12),
    "gpt2": ModelShape(
        architecture="gpt2", layers=2, width=32, heads=4, kv_heads=4, ffn_width=48, vocabulary=50, context=12
    ),
    "lstm": ModelShape(
        architecture="lstm", layers=2, width=32, heads=1, kv_heads=1, ffn_width=32, vocabulary=50, context=12
    ),
    "mamba2": ModelShape(
        architecture="mamba2", layers=2, width=32, heads=4, kv_heads=1, ffn_width=64, vocabulary=50, context=12,
        state_width=16,
    ),
}  # fmt: skip
"""One of each, for tests that train or decode."""


@st.composite
def _llama(draw: Callable[..., int]) -> dict[str, int]:
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 3))
    return {
        "width": heads * 2 * draw(st.integers(4, 12)),
        "heads": heads,
        "kv_heads": kv_heads,
        "ffn_width": 8 * draw(st.integers(1, 12)),
    }


@st.composite
def _gpt2(draw: Callable[..., int]) -> dict[str, int]:
    heads = draw(st.integers(1, 6))
    return {
        "width": heads * draw(st.integers(8, 20)),
        "heads": heads,
        "kv_heads": heads,
        "ffn_width": draw(st.integers(8, 90)),
    }


@st.composite
def _lstm(draw: Callable[..., int]) -> dict[str, int]:
    width = draw(st.integers(8, 48))
    return {"width": width, "heads": 1, "kv_heads": 1, "ffn_width": width}


@st.composite
def _mamba2(draw: Callable[..., int]) -> dict[str, int]:
    groups = draw(st.integers(1, 3))
    heads = groups * draw(st.integers(1, 3))
    width = heads * draw(st.integers(-(-8 // heads), 8))
    return {
        "width": width,
        "heads": heads,
        "kv_heads": groups,
        "ffn_width": 2 * width,
        "state_width": draw(st.integers(1, 20)),
    }


_OWN: dict[str, SearchStrategy[dict[str, int]]] = {
    "llama": _llama(),
    "gpt2": _gpt2(),
    "lstm": _lstm(),
    "mamba2": _mamba2(),
}


@st.composite
def shapes(draw: Callable[..., Any], architecture: str) -> ModelShape:
    """Any small shape of ``architecture``, square or not, tied or not."""
    return ModelShape(
        architecture=architecture,
        layers=draw(st.integers(1, 4)),
        vocabulary=draw(st.integers(2, 300)),
        context=draw(st.integers(2, 24)),
        tied=draw(st.booleans()),
        **draw(_OWN[architecture]),
    )
