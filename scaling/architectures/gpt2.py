"""GPT-2-style decoder (Radford et al. 2019): LayerNorm, biases, learned positions, a plain feed-forward block of GELU.

FLOPs are counted as for llama: matrix products alone, attention over the full context. The embedding of positions is a
stored parameter, so it counts in ``total``; it is looked up as the tokens' is, so like that it is left out of
``nonembedding`` (Kaplan et al. 2001.08361, table 1) and of ``with_head``.
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
    "check",
    "count_parameters",
    "forward_flops",
    "inference_flops_per_token",
    "shape_for",
    "shapes_within",
    "training_flops_per_token",
]

FAMILY = "transformer"
_FFN_RATIO = 4


def check(shape: ModelShape) -> None:
    if shape.kv_heads != shape.heads:
        raise ValueError(f"kv_heads {shape.kv_heads} is not heads {shape.heads}: gpt2 has no grouped queries")
    if shape.state_width is not None:
        raise ValueError(f"state_width {shape.state_width} is given, but gpt2 has no state: leave it out")


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Exact counts: every matrix of a layer has a bias, every norm a scale and a bias; the head has none."""
    width, ffn_width = shape.width, shape.ffn_width
    matrices = 4 * width * width + 2 * width * ffn_width
    biases = 4 * width + ffn_width + width
    norm = 2 * width
    nonembedding = shape.layers * (matrices + biases + 2 * norm) + norm
    embedding, positions = shape.vocabulary * width, shape.context * width
    return ParameterCounts(
        total=nonembedding + positions + embedding * (1 if shape.tied else 2),
        nonembedding=nonembedding,
        with_head=nonembedding + embedding,
    )


def forward_flops(shape: ModelShape, attended: int) -> ForwardFlops:
    """One token's forward pass while it attends to ``attended`` tokens, itself among them."""
    return ForwardFlops(
        projections=2 * shape.layers * 4 * shape.width * shape.width,
        scores=2 * shape.layers * 2 * attended * shape.width,
        feed_forward=2 * shape.layers * 2 * shape.width * shape.ffn_width,
        head=2 * shape.vocabulary * shape.width,
    )


def inference_flops_per_token(shape: ModelShape) -> int:
    return forward_flops(shape, shape.context).total


def training_flops_per_token(shape: ModelShape) -> int:
    return 3 * inference_flops_per_token(shape)


def _one_layer(width: int, vocabulary: int, context: int, tied: bool) -> ModelShape:
    heads = width // head_width(width)
    return ModelShape(
        architecture="gpt2",
        layers=1,
        width=width,
        heads=heads,
        kv_heads=heads,
        ffn_width=_FFN_RATIO * width,
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
