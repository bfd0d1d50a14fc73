"""What a model looks like, in numbers alone: no framework, no weights."""

from __future__ import annotations

from pydantic import Field, model_validator

from scaling.record import Record

__all__ = ["ForwardFlops", "ModelShape", "ParameterCounts"]


class ParameterCounts(Record):
    """The three ways the field counts parameters. The same runs give exponents from 0.37 to 0.70 by this alone.

    ``total`` counts every stored parameter once (Hoffmann et al. 2203.15556). ``nonembedding`` leaves out the token
    embedding and the output head (Kaplan et al. 2001.08361). ``with_head`` is ``nonembedding`` plus the head's matrix,
    whether or not it is tied to the embedding: what a token is really multiplied with.
    """

    total: int
    nonembedding: int
    with_head: int


class ForwardFlops(Record):
    """FLOPs of one token's forward pass, two for each multiply-add, by where they go. The look-up of the embedding is
    none."""

    projections: int
    """Into queries, keys and values, and out of attention; into a recurrent block and out of it. Grouped queries save
    in keys and values."""
    scores: int = 0
    """Queries against the keys of every token attended to, and the mix of their values."""
    recurrence: int = 0
    """From a state to the next and out of it; none in a transformer."""
    feed_forward: int = 0
    router: int = 0
    """Choosing experts; none in a dense model."""
    head: int

    @property
    def total(self) -> int:
        return self.projections + self.scores + self.recurrence + self.feed_forward + self.router + self.head


class ModelShape(Record):
    """The sizes that fix a decoder's parameters and FLOPs; ``scaling.architectures`` counts them."""

    architecture: str = "llama"
    layers: int = Field(ge=1)
    width: int = Field(ge=8, description="width of the residual stream, d_model")
    heads: int = Field(ge=1, description="query heads")
    kv_heads: int = Field(ge=1, description="key-value heads; fewer than heads is grouped-query attention")
    ffn_width: int = Field(ge=8, description="inner width of the feed-forward block")
    vocabulary: int = Field(ge=2)
    context: int = Field(ge=2, description="tokens a training sequence holds")
    tied: bool = Field(default=True, description="the output head shares the embedding's matrix")
    state_width: int | None = Field(default=None, ge=1, description="state of each channel; state-space models alone")

    @model_validator(mode="after")
    def _divides(self) -> ModelShape:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self

    @model_validator(mode="after")
    def _its_architecture_has_it(self) -> ModelShape:
        from scaling import architectures  # they are made of this

        architectures.check(self)
        return self

    @property
    def head_width(self) -> int:
        return self.width // self.heads
