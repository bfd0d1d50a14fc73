"""What a study file says under ``hyperparameters.tune``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scaling.record import Record

__all__ = ["Tunable", "TuneSettings", "TunedRanges"]

Tunable = Literal["learning_rate", "global_batch_tokens", "weight_decay", "warmup", "adam_betas"]
Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class TunedRanges(Record):
    """Lowest and highest value to try of each hyperparameter; the batch's default is a quarter to four times the
    study's, the decay's a tenth to ten times."""

    learning_rate: Range = (1e-3, 1e-1)
    global_batch_tokens: Range | None = None
    weight_decay: Range | None = None
    warmup: Range = (0.01, 0.3)
    beta1: Range = (0.8, 0.97)
    beta2: Range = (0.9, 0.995)

    @model_validator(mode="after")
    def _ascending(self) -> TunedRanges:
        for name in type(self).model_fields:
            limits = getattr(self, name)
            if limits is not None and limits[0] >= limits[1]:
                raise ValueError(f"{name} is {list(limits)}: give the lower value first")
        for name, most in (("learning_rate", 1.0), ("warmup", 0.5), ("beta1", 1.0), ("beta2", 1.0)):
            if getattr(self, name)[1] >= most and (name != "warmup" or self.warmup[1] > most):
                raise ValueError(f"{name} goes up to {getattr(self, name)[1]:g}: stay below {most:g}")
        return self


class TuneSettings(Record):
    """``trials`` of each of ``sizes`` x ``lengths`` small models."""

    trials: int = Field(default=16, ge=4, le=1000)
    sampler: Literal["tpe", "gp", "random"] = "tpe"
    prune: bool = True
    over: tuple[Tunable, ...] = ("learning_rate", "global_batch_tokens")
    sizes: int = Field(default=3, ge=1, le=8)
    lengths: int = Field(default=2, ge=1, le=4)
    ranges: TunedRanges = TunedRanges()
    storage: Literal["journal"] | Annotated[str, Field(pattern=r"^[a-z0-9+]+://")] = "journal"

    @model_validator(mode="after")
    def _rate_among_them(self) -> TuneSettings:
        if "learning_rate" not in self.over:
            raise ValueError("over must name learning_rate: the best values of the others depend on it")
        if len(set(self.over)) != len(self.over):
            raise ValueError("over names a hyperparameter twice")
        return self
