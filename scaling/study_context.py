"""What a study knows beyond its fit: the family it was measured on, its corpus and its recipe."""

from __future__ import annotations

from pydantic import Field

from scaling.hyperparameters import LearningRateLaw
from scaling.laws.power_lines import WeightDecay
from scaling.loss_band import OnTheWay
from scaling.record import Record
from scaling.run_spec import Parametrisation

__all__ = ["StudyContext"]


class StudyContext(Record):
    """What a study knows beyond its fit: the family it was measured on, its corpus and its recipe."""

    architecture: str
    vocabulary: int
    context: int
    tied: bool
    data_key: str
    tokenizer_key: str
    held_out_tokens: int
    unique_tokens: int
    bytes_per_token: float
    learning_rate_law: LearningRateLaw
    anchor_batch_tokens: int = Field(description="batch of the largest fitted run")
    anchor_tokens: int = Field(description="tokens of the largest fitted run")
    weight_decay: WeightDecay
    parametrisation: Parametrisation = Parametrisation()
    seed: int
    on_the_way: tuple[OnTheWay, ...] = ()
    """How far above their end the fitted runs were while they went (:func:`scaling.loss_band.on_the_way`)."""
