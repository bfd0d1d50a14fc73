"""The llama decoder with mixtures of experts: accounts of its parameters and FLOPs, active and total.

In each expert layer a linear router sends a token to ``experts_per_token`` of ``experts`` SwiGLU blocks; shared experts
see every token; the first ``dense_layers`` keep one dense block (Mixtral 2401.04088, DeepSeekMoE 2401.06066). What a
token is multiplied with is active; what must be stored is the total. No model of this kind is trained here, so it is no
architecture of ``scaling.architectures``, and no published law of it is used: none could be checked against its source.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from scaling.architectures.llama import attention_parameters_per_layer
from scaling.shape import ForwardFlops, ModelShape, ParameterCounts

__all__ = ["MoeShape", "count_active_parameters", "count_parameters", "forward_flops", "training_flops_per_token"]


class MoeShape(ModelShape):
    """A :class:`ModelShape` whose feed-forward blocks are experts; ``ffn_width`` is that of its dense layers."""

    architecture: str = "llama-moe"
    experts: int = Field(ge=1, description="routed experts of a layer")
    experts_per_token: int = Field(ge=1)
    expert_ffn_width: int = Field(ge=8, description="inner width of one expert")
    shared_experts: int = Field(default=0, ge=0, description="experts that every token goes through")
    dense_layers: int = Field(default=0, ge=0, description="first layers without experts")

    @model_validator(mode="after")
    def _routes(self) -> MoeShape:
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token {self.experts_per_token} is over experts {self.experts}")
        if self.dense_layers >= self.layers:
            raise ValueError(f"dense_layers {self.dense_layers} leaves no layer of {self.layers} with experts")
        return self

    @property
    def sparsity(self) -> float:
        """Share of all parameters that a token is not multiplied with."""
        return 1 - count_active_parameters(self).total / count_parameters(self).total


def count_parameters(shape: MoeShape) -> ParameterCounts:
    """All stored parameters, under the three conventions."""
    return _counts(shape, shape.experts)


def count_active_parameters(shape: MoeShape) -> ParameterCounts:
    """Those that one token meets; the whole router, embedding and head are among them."""
    return _counts(shape, shape.experts_per_token)


def _counts(shape: MoeShape, routed: int) -> ParameterCounts:
    norms = 2 * shape.width
    expert_layer = (
        attention_parameters_per_layer(shape)
        + norms
        + shape.width * shape.experts
        + (routed + shape.shared_experts) * 3 * shape.width * shape.expert_ffn_width
    )
    dense_layer = attention_parameters_per_layer(shape) + norms + 3 * shape.width * shape.ffn_width
    nonembedding = (shape.layers - shape.dense_layers) * expert_layer + shape.dense_layers * dense_layer + shape.width
    embedding = shape.vocabulary * shape.width
    return ParameterCounts(
        total=nonembedding + embedding * (1 if shape.tied else 2),
        nonembedding=nonembedding,
        with_head=nonembedding + embedding,
    )


def forward_flops(shape: MoeShape, attended: int) -> ForwardFlops:
    """One token's forward pass while it attends to ``attended`` tokens: its own experts alone."""
    expert_layers = shape.layers - shape.dense_layers
    active = (shape.experts_per_token + shape.shared_experts) * shape.expert_ffn_width
    return ForwardFlops(
        projections=2 * shape.layers * attention_parameters_per_layer(shape),
        scores=2 * shape.layers * 2 * attended * shape.width,
        feed_forward=2 * 3 * shape.width * (expert_layers * active + shape.dense_layers * shape.ffn_width),
        router=2 * expert_layers * shape.width * shape.experts,
        head=2 * shape.vocabulary * shape.width,
    )


def training_flops_per_token(shape: MoeShape) -> int:
    """Forward and backward at the shape's context."""
    return 3 * forward_flops(shape, shape.context).total
