"""Llama-style decoder: RMSNorm, rotary positions, SwiGLU, no biases, optional grouped queries, tied or untied head.

FLOPs count two for each multiply-add of a matrix product, forward once and backward twice, and the attention scores
over the full context (the PaLM convention, 2204.02311 appendix B: the causal half that a fused kernel may skip counts).
Norms, rotations, the softmax and the embedding look-up are not counted, as in PyTorch's own counter.
"""

from __future__ import annotations

from collections.abc import Iterator

from scaling.architectures.size_dial import (
    TRANSFORMER_WIDTHS,
    head_width,
    nearest_shape,
    shapes_between,
    transformer_aspect,
)
from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = [
    "FAMILY",
    "attention_parameters_per_layer",
    "check",
    "count_parameters",
    "forward_flops",
    "inference_flops_per_token",
    "shape_for",
    "shapes_within",
    "training_flops_per_token",
]

FAMILY = "transformer"
_GROUPED_FROM_WIDTH = 4096
_GROUPED_KV_HEADS = 8


def check(shape: ModelShape) -> None:
    if shape.head_width % 2:
        raise ValueError(f"width {shape.width} over heads {shape.heads} is odd: rotary positions turn pairs")
    if shape.state_width is not None:
        raise ValueError(f"state_width {shape.state_width} is given, but llama has no state: leave it out")


def attention_parameters_per_layer(shape: ModelShape) -> int:
    """The four projections; keys and values have one head for a group of query heads."""
    kv_width = shape.kv_heads * shape.head_width
    return 2 * shape.width * shape.width + 2 * shape.width * kv_width


def _matrix_parameters_per_layer(shape: ModelShape) -> int:
    return attention_parameters_per_layer(shape) + 3 * shape.width * shape.ffn_width


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Exact counts: two norms a layer and one at the end, three feed-forward matrices, no biases."""
    nonembedding = shape.layers * (_matrix_parameters_per_layer(shape) + 2 * shape.width) + shape.width
    embedding = shape.vocabulary * shape.width
    return ParameterCounts(
        total=nonembedding + embedding * (1 if shape.tied else 2),
        nonembedding=nonembedding,
        with_head=nonembedding + embedding,
    )


def forward_flops(shape: ModelShape, attended: int) -> ForwardFlops:
    """One token's forward pass while it attends to ``attended`` tokens, itself among them."""
    return ForwardFlops(
        projections=2 * shape.layers * attention_parameters_per_layer(shape),
        scores=2 * shape.layers * 2 * attended * shape.width,
        feed_forward=2 * shape.layers * 3 * shape.width * shape.ffn_width,
        head=2 * shape.vocabulary * shape.width,
    )


def inference_flops_per_token(shape: ModelShape) -> int:
    return forward_flops(shape, shape.context).total


def training_flops_per_token(shape: ModelShape) -> int:
    return 3 * inference_flops_per_token(shape)


def _one_layer(width: int, vocabulary: int, context: int, tied: bool) -> ModelShape:
    heads = width // head_width(width)
    grouped = width >= _GROUPED_FROM_WIDTH and heads % _GROUPED_KV_HEADS == 0
    step = 256 if width >= 2048 else 64 if width >= 512 else 16 if width >= 64 else 8
    # Grouped queries save attention parameters that the feed-forward block gets back, as in Llama 3.
    ffn_width = round((3.5 if grouped else 8 / 3) * width / step) * step
    return ModelShape(
        layers=1,
        width=width,
        heads=heads,
        kv_heads=_GROUPED_KV_HEADS if grouped else heads,
        ffn_width=ffn_width,
        vocabulary=vocabulary,
        context=context,
        tied=tied,
    )


def shape_for(params_total: float, *, vocabulary: int, context: int, tied: bool = True) -> ModelShape:
    """The shape nearest to ``params_total``; ``ValueError`` if even the smallest is over twice that."""
    return nearest_shape(
        params_total,
        widths=TRANSFORMER_WIDTHS,
        one_layer=lambda width: _one_layer(width, vocabulary, context, tied),
        count=count_parameters,
        aspect=transformer_aspect(params_total),
    )


def shapes_within(
    least: float, most: float, *, vocabulary: int, context: int, tied: bool = True, ratio: float
) -> Iterator[ModelShape]:
    """Shapes of ``least`` to ``most`` total parameters, a factor ``ratio`` wider or deeper than the dial's at most."""
    return shapes_between(
        least, most, one_layer=lambda width: _one_layer(width, vocabulary, context, tied), count=count_parameters,
        ratio=ratio,
    )  # fmt: skip
