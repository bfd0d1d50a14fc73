"""Mamba-2 (Dao & Gu 2405.21060), a state-space model: ``heads`` of ``ffn_width / heads`` channels, each channel with a
state of ``state_width``; ``kv_heads`` groups of heads share how the state is written and read (B and C).

FLOPs count matrix products, as for llama. Training cuts a sequence into chunks (:func:`chunk_length`) and computes, for
each token, its products with all tokens of its chunk, above the diagonal too (``scores``), and with the chunk's state,
written and read once (``recurrence``; none where one chunk is the whole context). Decoding has no chunk: it writes and
reads the state. So ``forward_flops`` and ``inference_flops_per_token`` are those of decoding, and training is three
times the chunked form. Not counted, being element-wise: decays, the short convolution, gates, norms.
"""

from __future__ import annotations

from scaling.architectures.size_dial import TRANSFORMER_WIDTHS, nearest_shape, transformer_aspect
from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = [
    "CONVOLUTION",
    "FAMILY",
    "check",
    "chunk_length",
    "chunked_flops",
    "count_parameters",
    "forward_flops",
    "inference_flops_per_token",
    "shape_for",
    "training_flops_per_token",
]

FAMILY = "state-space"
CONVOLUTION = 4
"""Taps of the short convolution."""
EXPANSION = 2
_LONGEST_CHUNK = 64
_SHORTEST_CHUNK = 16
_DEEPER = 0.5
"""Times a transformer's ratio of width to depth: a layer is one block where a transformer's is two (2405.21060 has 24
layers at a width of 768, GPT-2 has 12)."""


def chunk_length(context: int) -> int:
    """Tokens of a chunk: the most that cut ``context`` into equal parts, 64 at most."""
    return next(length for length in range(min(context, _LONGEST_CHUNK), 0, -1) if context % length == 0)


def check(shape: ModelShape) -> None:
    if shape.state_width is None:
        raise ValueError("state_width is missing: a mamba2 has a state for each channel, of 16 to 128 numbers")
    if shape.ffn_width != EXPANSION * shape.width:
        raise ValueError(f"ffn_width {shape.ffn_width} is not {EXPANSION} times width {shape.width}, as in mamba2")
    _check_context(shape.context)


def _check_context(context: int) -> None:
    if chunk_length(context) < min(_SHORTEST_CHUNK, context):
        raise ValueError(
            f"context {context} can't be cut into equal chunks of {_SHORTEST_CHUNK} to {_LONGEST_CHUNK} tokens, "
            f"which mamba2 is trained in: use a multiple of {_LONGEST_CHUNK}"
        )


def _state_width(shape: ModelShape) -> int:
    check(shape)
    assert shape.state_width is not None
    return shape.state_width


def _projections_per_layer(shape: ModelShape) -> int:
    """Into gate, channels, B, C and step sizes, and out of the block."""
    into = 2 * shape.ffn_width + 2 * shape.kv_heads * _state_width(shape) + shape.heads
    return shape.width * into + shape.ffn_width * shape.width


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Exact counts: the convolution has a bias; each head a decay, a step size and a skip; norms scale alone."""
    convolved = shape.ffn_width + 2 * shape.kv_heads * _state_width(shape)
    layer = (
        _projections_per_layer(shape) + convolved * (CONVOLUTION + 1) + 3 * shape.heads + shape.ffn_width + shape.width
    )
    nonembedding = shape.layers * layer + shape.width
    embedding = shape.vocabulary * shape.width
    return ParameterCounts(
        total=nonembedding + embedding * (1 if shape.tied else 2),
        nonembedding=nonembedding,
        with_head=nonembedding + embedding,
    )


def forward_flops(shape: ModelShape, attended: int) -> ForwardFlops:
    """One token's forward pass in decoding, whatever came before it."""
    return ForwardFlops(
        projections=2 * shape.layers * _projections_per_layer(shape),
        recurrence=2 * shape.layers * 2 * _state_width(shape) * shape.ffn_width,
        head=2 * shape.vocabulary * shape.width,
    )


def chunked_flops(shape: ModelShape) -> ForwardFlops:
    """One token's forward pass in training."""
    chunk = chunk_length(shape.context)
    decoding = forward_flops(shape, shape.context)
    seen = shape.kv_heads * _state_width(shape) + shape.ffn_width
    return decoding.model_copy(
        update={
            "scores": 2 * shape.layers * chunk * seen,
            "recurrence": decoding.recurrence if chunk < shape.context else 0,
        }
    )


def inference_flops_per_token(shape: ModelShape) -> int:
    return forward_flops(shape, shape.context).total


def training_flops_per_token(shape: ModelShape) -> int:
    return 3 * chunked_flops(shape).total


def _one_layer(width: int, vocabulary: int, context: int, tied: bool) -> ModelShape:
    channels = 64 if width >= 128 else 32 if width % 16 == 0 else 16
    return ModelShape(
        architecture="mamba2",
        layers=1,
        width=width,
        heads=EXPANSION * width // channels,
        kv_heads=1,
        ffn_width=EXPANSION * width,
        vocabulary=vocabulary,
        context=context,
        tied=tied,
        state_width=128 if width >= 512 else 64 if width >= 128 else 32 if width >= 64 else 16,
    )


def shape_for(params_total: float, *, vocabulary: int, context: int, tied: bool = True) -> ModelShape:
    """The shape nearest to ``params_total``; ``ValueError`` if even the smallest is over twice that, or for a context
    that can't be cut into chunks."""
    _check_context(context)
    return nearest_shape(
        params_total,
        widths=TRANSFORMER_WIDTHS,
        one_layer=lambda width: _one_layer(width, vocabulary, context, tied),
        count=count_parameters,
        aspect=_DEEPER * transformer_aspect(params_total),
    )
