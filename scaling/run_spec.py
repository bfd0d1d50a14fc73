"""What one training run is. Two runs with the same specification are the same run, and only one is ever trained."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from scaling.record import Record, content_hash
from scaling.shape import ModelShape

__all__ = ["SCHEMA_VERSION", "OptimizerSpec", "RunSpec", "ScheduleSpec"]

SCHEMA_VERSION = 1
"""Raised when the meaning of a field changes: old and new runs then have different keys."""


class OptimizerSpec(Record):
    """AdamW (Loshchilov & Hutter 1711.05101) with decoupled weight decay on matrices only."""

    name: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0, description="peak learning rate")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0, description="largest global norm of the gradient")


class ScheduleSpec(Record):
    """Warm-up, stable, decay (Hu et al. 2404.06395; Hägele et al. 2405.18392), measured in tokens."""

    kind: Literal["wsd"] = "wsd"
    warmup_tokens: int = Field(ge=0)
    cooldown_tokens: int = Field(ge=0)
    cooldown_shape: Literal["linear", "1-sqrt"] = "1-sqrt"


class RunSpec(Record):
    """One run: shape, data, optimiser, schedule and seed. Its ``key`` is the SHA-256 of all of them.

    Numerics (precision, compilation, threads, micro-batch) are recorded beside the run and are no part of its
    identity: they change the last digits, not the question.
    """

    schema_version: int = SCHEMA_VERSION
    shape: ModelShape
    parametrisation: Literal["standard"] = "standard"
    tokens: int = Field(ge=1, description="training tokens, a multiple of global_batch_tokens")
    global_batch_tokens: int = Field(ge=1, description="tokens a step, a multiple of the context")
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    seed: int = Field(default=0, ge=0)
    data_key: str = Field(description="fingerprint of the tokenised corpus (trainer.data)")
    tokenizer_key: str = Field(description="SHA-256 of the tokenizer's file")
    held_out_tokens: int = Field(ge=1, description="size of the fixed held-out token set that the loss is measured on")

    @model_validator(mode="after")
    def _whole_steps(self) -> RunSpec:
        if self.global_batch_tokens % self.shape.context:
            raise ValueError(
                f"global_batch_tokens {self.global_batch_tokens} is not a multiple of context {self.shape.context}"
            )
        if self.tokens % self.global_batch_tokens:
            raise ValueError(
                f"tokens {self.tokens} is not a multiple of global_batch_tokens {self.global_batch_tokens}"
            )
        if self.schedule.warmup_tokens + self.schedule.cooldown_tokens > self.tokens:
            raise ValueError("warmup_tokens and cooldown_tokens together exceed tokens")
        return self

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits; equal specifications have equal keys on every machine."""
        return content_hash(self.model_dump(mode="json"))

    @property
    def steps(self) -> int:
        return self.tokens // self.global_batch_tokens

    @property
    def sequences_per_step(self) -> int:
        return self.global_batch_tokens // self.shape.context
