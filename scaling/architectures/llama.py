"""Llama-style decoder: RMSNorm, rotary positions, SwiGLU, no biases, optional grouped queries, tied or untied head.

FLOPs count two for each multiply-add of a matrix product, forward once and backward twice, and the attention scores
over the full context (the PaLM convention, 2204.02311 appendix B: the causal half that a fused kernel may skip counts).
Norms, rotations, the softmax and the embedding look-up are not counted, as in PyTorch's own counter.
"""

from __future__ import annotations

import math

from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = [
    "attention_parameters_per_layer",
    "count_parameters",
    "forward_flops",
    "inference_flops_per_token",
    "shape_for",
    "training_flops_per_token",
]

_MAX_ASPECT = 128.0
_GROUPED_FROM_WIDTH = 4096
_GROUPED_KV_HEADS = 8


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


def ideal_aspect(params_total: float) -> float:
    """Width over depth aimed at: 20 at 1e5 parameters, 68 at 44M (Chinchilla's smallest), 128 from 1e9 (Llama)."""
    return float(min(_MAX_ASPECT, _MAX_ASPECT * (params_total / 1e9) ** 0.2))


def _head_width(width: int) -> int:
    for from_width, head_width in ((2048, 128), (512, 64), (128, 32)):
        if width >= from_width:
            return head_width
    return 8 if width % 16 else 16


def _of_width(width: int, layers: int, vocabulary: int, context: int, tied: bool) -> ModelShape:
    heads = width // _head_width(width)
    grouped = width >= _GROUPED_FROM_WIDTH and heads % _GROUPED_KV_HEADS == 0
    step = 256 if width >= 2048 else 64 if width >= 512 else 16 if width >= 64 else 8
    # Grouped queries save attention parameters that the feed-forward block gets back, as in Llama 3.
    ffn_width = round((3.5 if grouped else 8 / 3) * width / step) * step
    return ModelShape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=_GROUPED_KV_HEADS if grouped else heads,
        ffn_width=ffn_width,
        vocabulary=vocabulary,
        context=context,
        tied=tied,
    )


def shape_for(params_total: float, *, vocabulary: int, context: int, tied: bool = True) -> ModelShape:
    """The shape nearest to ``params_total``: for each width the best depth, then the best of size and aspect.

    Raises ``ValueError`` if even the smallest shape is over twice ``params_total``.
    """
    aim = ideal_aspect(params_total)
    best: tuple[float, ModelShape] | None = None
    for width in _widths():
        one = _of_width(width, 1, vocabulary, context, tied)
        per_layer = _matrix_parameters_per_layer(one) + 2 * width
        around = (params_total - count_parameters(one).total) / per_layer + 1
        for layers in {max(1, math.floor(around)), max(1, math.ceil(around))}:
            shape = one.model_copy(update={"layers": layers})
            size_error = abs(math.log(count_parameters(shape).total / params_total))
            aspect_error = abs(math.log(width / layers / aim))
            score = 3 * size_error + aspect_error
            if best is None or score < best[0]:
                best = (score, shape)
    if best is None or count_parameters(best[1]).total > 2 * params_total:
        smallest = count_parameters(_of_width(16, 1, vocabulary, context, tied)).total
        raise ValueError(
            f"no shape with a vocabulary of {vocabulary} comes near {params_total:.3g} parameters; the "
            f"smallest has {smallest}: use a smaller vocabulary or a larger model"
        )
    return best[1]


def _widths() -> list[int]:
    """Multiples of the head width at each scale, so that heads divide and matrix units are filled."""
    return [
        *range(16, 64, 8), *range(64, 128, 16), *range(128, 512, 32), *range(512, 2048, 128),
        *range(2048, 4096, 256), *range(4096, 32768 + 1, 1024),
    ]  # fmt: skip
