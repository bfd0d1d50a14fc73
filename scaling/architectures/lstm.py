"""LSTM language model (Hochreiter & Schmidhuber 1997), the classical comparison (Kaplan et al. 2001.08361, figure 7).

Each layer is one LSTM, as wide as the residual stream that it adds to. FLOPs are those of the eight gate matrices: four
of the input (``projections``) and four of the state (``recurrence``), at every token alike, the first with its zero
state among them. Gates, norms and the embedding look-up are not counted, as in llama; nothing grows with the context.
"""

from __future__ import annotations

from scaling.architectures.size_dial import nearest_shape, transformer_aspect
from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = [
    "FAMILY",
    "check",
    "count_parameters",
    "forward_flops",
    "inference_flops_per_token",
    "shape_for",
    "training_flops_per_token",
]

FAMILY = "recurrent"
_WIDTHS = (
    *range(16, 128, 8), *range(128, 512, 16), *range(512, 1024, 32), *range(1024, 2048, 64),
    *range(2048, 16384 + 1, 256),
)  # fmt: skip
_WIDER = 2.0
"""Times a transformer's ratio of width to depth: depth gained nothing where it was measured (docs/decisions.md)."""


def check(shape: ModelShape) -> None:
    for field in ("heads", "kv_heads"):
        if getattr(shape, field) != 1:
            raise ValueError(f"{field} is {getattr(shape, field)}, but an lstm has no heads: use 1")
    if shape.ffn_width != shape.width:
        raise ValueError(f"ffn_width {shape.ffn_width} is not width {shape.width}: an lstm's state is as wide as both")
    if shape.state_width is not None:
        raise ValueError(f"state_width {shape.state_width} is given, but an lstm's is ffn_width: leave it out")


def count_parameters(shape: ModelShape) -> ParameterCounts:
    """Exact counts: eight gate matrices and eight biases a layer (each gate has one of the input and one of the state,
    as in torch.nn.LSTM), a norm before each layer and one at the end."""
    width = shape.width
    nonembedding = shape.layers * (8 * width * width + 8 * width + width) + width
    embedding = shape.vocabulary * width
    return ParameterCounts(
        total=nonembedding + embedding * (1 if shape.tied else 2),
        nonembedding=nonembedding,
        with_head=nonembedding + embedding,
    )


def forward_flops(shape: ModelShape, attended: int) -> ForwardFlops:
    """One token's forward pass, whatever came before it."""
    gates = 2 * shape.layers * 4 * shape.width * shape.width
    return ForwardFlops(projections=gates, recurrence=gates, head=2 * shape.vocabulary * shape.width)


def inference_flops_per_token(shape: ModelShape) -> int:
    return forward_flops(shape, shape.context).total


def training_flops_per_token(shape: ModelShape) -> int:
    return 3 * inference_flops_per_token(shape)


def shape_for(params_total: float, *, vocabulary: int, context: int, tied: bool = True) -> ModelShape:
    """The shape nearest to ``params_total``; ``ValueError`` if even the smallest is over twice that."""

    def one_layer(width: int) -> ModelShape:
        return ModelShape(
            architecture="lstm",
            layers=1,
            width=width,
            heads=1,
            kv_heads=1,
            ffn_width=width,
            vocabulary=vocabulary,
            context=context,
            tied=tied,
        )

    return nearest_shape(
        params_total,
        widths=_WIDTHS,
        one_layer=one_layer,
        count=count_parameters,
        aspect=_WIDER * transformer_aspect(params_total),
    )
