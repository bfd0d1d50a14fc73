"""What a study knows beyond its fit: the family it was measured on, its corpus and its recipe."""

from __future__ import annotations

from pydantic import Field

from scaling.batch_rule import BatchRule
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
    batch: BatchRule = Field(description="of the fitted runs; where they had one for all, that of the largest")
    weight_decay: WeightDecay
    parametrisation: Parametrisation = Parametrisation()
    seed: int
    on_the_way: tuple[OnTheWay, ...] = ()
    """How far above their end the fitted runs were while they went (:func:`scaling.loss_band.on_the_way`)."""
