"""What one training run is. Two runs with the same specification are the same run, and only one is ever trained."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import Field, model_validator

from scaling.errors import UserError
from scaling.record import Record, content_hash
from scaling.shape import ModelShape

__all__ = [
    "SCHEMA_VERSION",
    "AnnealSpec",
    "OptimizerSpec",
    "Parametrisation",
    "RunSpec",
    "ScheduleSpec",
    "SpikePolicy",
]

SCHEMA_VERSION = 2
"""Raised when the meaning of a field changes: old and new runs then have different keys.

2: architectures, parametrisations, Muon, cosine, spike policies and annealing."""


class OptimizerSpec(Record):
    """AdamW (Loshchilov & Hutter 1711.05101), or Muon (Jordan et al. 2024) for the layers' matrices and AdamW for the
    rest. Decay is decoupled, and on matrices only.

    Muon's update is scaled to the root mean square of AdamW's (Moonlight, 2502.16982), so that one learning rate and
    one decay hold for both.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0, description="peak learning rate")
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0, description="largest global norm of the gradient")
    muon_momentum: float | None = Field(default=None, ge=0, lt=1, description="0.95 unless given; Muon's alone")

    @model_validator(mode="before")
    @classmethod
    def _momentum_is_muons(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("name") == "muon":
            return data if data.get("muon_momentum") is not None else {**data, "muon_momentum": 0.95}
        if data.get("muon_momentum") is not None:
            raise ValueError("muon_momentum is given, but the optimizer is adamw: leave it out, or set name to muon")
        return data


class ScheduleSpec(Record):
    """The learning rate over the run, measured in tokens: it rises linearly over ``warmup_tokens``, then

    wsd: stays, and falls to ``floor`` over the last ``cooldown_tokens`` (Hu et al. 2404.06395; Hägele et al.
    2405.18392); cosine: falls along half a cosine to ``floor`` at the end (Loshchilov & Hutter 1608.03983).
    ``constant`` is read as wsd without a cooldown.
    """

    kind: Literal["wsd", "cosine"] = "wsd"
    warmup_tokens: int = Field(ge=0)
    cooldown_tokens: int = Field(default=0, ge=0)
    cooldown_shape: Literal["linear", "1-sqrt"] = "1-sqrt"
    floor: float = Field(default=0.0, ge=0, le=1, description="share of the peak rate that is left at the end")

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_say_it(cls, data: Any) -> Any:
        """What the kind does not read gets its default, so that equal schedules are equal records."""
        if not isinstance(data, dict):
            return data
        kind, cooldown = data.get("kind", "wsd"), data.get("cooldown_tokens", 0)
        if kind in ("constant", "cosine") and cooldown:
            raise ValueError(f"cooldown_tokens is {cooldown}, but a {kind} schedule has no cooldown: use kind wsd")
        if kind == "cosine":
            return {name: value for name, value in data.items() if name != "cooldown_shape"}
        if kind == "constant" or not cooldown:
            data = {name: value for name, value in data.items() if name not in ("cooldown_shape", "floor")}
            return {**data, "kind": "wsd"} if kind == "constant" else data
        return data


class Parametrisation(Record):
    """How initial weights, learning rates and multipliers follow the shape (``trainer.models.parametrisation``).

    standard: they don't, but for 1/sqrt(fan-in). mup: width from ``base_width`` on (Yang et al. 2203.03466).
    completep: depth from ``base_layers`` on too (Dey et al. 2505.01618). A learning rate is that of the base shape.
    ``base_head_width`` is given where the width of attention heads follows the width; None is that it stays.
    """

    name: Literal["standard", "mup", "completep"] = "standard"
    base_width: int | None = Field(default=None, ge=8)
    base_layers: int | None = Field(default=None, ge=1)
    base_head_width: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _has_its_base(self) -> Parametrisation:
        wanted = {"standard": (), "mup": ("base_width",), "completep": ("base_width", "base_layers")}[self.name]
        for field in ("base_width", "base_layers"):
            if (getattr(self, field) is not None) != (field in wanted):
                need = "needs" if field in wanted else "takes no"
                raise ValueError(f"parametrisation {self.name} {need} {field}")
        if self.name == "standard" and self.base_head_width is not None:
            raise ValueError("parametrisation standard takes no base_head_width")
        return self

    @property
    def label(self) -> str:
        """For people: ``muP from a width of 64``."""
        if self.name == "standard":
            return "the standard parametrisation"
        layers = f" and {self.base_layers} layers" if self.base_layers else ""
        return f"{'muP' if self.name == 'mup' else 'CompleteP'} from a width of {self.base_width}{layers}"

    def matrix_rate(self, width: int) -> float:
        """What AdamW's learning rate is multiplied with for a layer's matrices, at this width."""
        return (self.base_width or width) / width


class SpikePolicy(Record):
    """What happens at a step whose loss or gradient norm lies ``sigma`` standard deviations above the mean of the
    ``window`` steps before it (OLMo-core's rule).

    continue: it is taken. skip: its update is left out. rewind: the run goes back to the last multiple of ``window``
    steps and on with later data. Each is recorded with the run.
    """

    action: Literal["continue", "skip", "rewind"] = "continue"
    sigma: float = Field(default=6.0, gt=0)
    window: int = Field(default=128, ge=8)

    @model_validator(mode="before")
    @classmethod
    def _word(cls, data: Any) -> Any:
        return {"action": data} if isinstance(data, str) else data


class AnnealSpec(Record):
    """From ``from_tokens`` on the data is another corpus's, tokenised alike."""

    data_key: str
    from_tokens: int = Field(ge=0, description="a multiple of global_batch_tokens")


class RunSpec(Record):
    """One run: shape, data, optimiser, schedule and seed. Its ``key`` is the SHA-256 of all of them.

    Numerics (precision, compilation, threads, micro-batch) are recorded beside the run and are no part of its
    identity: they change the last digits, not the question.
    """

    schema_version: int = SCHEMA_VERSION
    shape: ModelShape
    parametrisation: Parametrisation = Parametrisation()
    tokens: int = Field(ge=1, description="training tokens, a multiple of global_batch_tokens")
    global_batch_tokens: int = Field(ge=1, description="tokens a step, a multiple of the context")
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    spikes: SpikePolicy = SpikePolicy()
    anneal: AnnealSpec | None = None
    seed: int = Field(default=0, ge=0)
    data_key: str = Field(description="fingerprint of the tokenised corpus (trainer.data)")
    tokenizer_key: str = Field(description="SHA-256 of the tokenizer's file")
    held_out_tokens: int = Field(ge=1, description="size of the fixed held-out token set that the loss is measured on")

    @model_validator(mode="before")
    @classmethod
    def _of_this_schema(cls, data: Any) -> Any:
        """:class:`UserError` for a specification whose fields meant something else: its key would name another run."""
        found = data.get("schema_version", SCHEMA_VERSION) if isinstance(data, dict) else SCHEMA_VERSION
        if found != SCHEMA_VERSION:
            raise UserError(
                f"a run specification of schema_version {found} is from another version of this program, which reads "
                f"{SCHEMA_VERSION}: give the study another name or workspace, or go on with the version that began it"
            )
        return data

    @model_validator(mode="after")
    def _whole_steps(self) -> RunSpec:
        batch = self.global_batch_tokens
        if batch % self.shape.context:
            raise ValueError(f"global_batch_tokens {batch} is not a multiple of context {self.shape.context}")
        if self.tokens % batch:
            raise ValueError(f"tokens {self.tokens} is not a multiple of global_batch_tokens {batch}")
        if self.schedule.warmup_tokens + self.schedule.cooldown_tokens > self.tokens:
            raise ValueError("warmup_tokens and cooldown_tokens together exceed tokens")
        if self.anneal and (self.anneal.from_tokens % batch or self.anneal.from_tokens >= self.tokens):
            raise ValueError(
                f"anneal.from_tokens {self.anneal.from_tokens} is not a multiple of global_batch_tokens {batch} below "
                f"tokens {self.tokens}"
            )
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

    # Trunk and branches

    @cached_property
    def trunk_key(self) -> str:
        """Equal for runs that are the same up to where the earlier of them leaves the constant rate and the data.

        A cosine knows its end from the first step on: such a run is its own trunk.
        """
        if self.schedule.kind == "cosine":
            return self.key
        shared = self.model_dump(mode="json", exclude={"tokens", "schedule", "anneal"})
        return content_hash(shared | {"warmup_tokens": self.schedule.warmup_tokens})

    @property
    def branch_step(self) -> int:
        """The step (from 0) at which the run leaves its trunk: the cooldown begins, or the data is another's.

        A step that lies across the border is the branch's.
        """
        if self.schedule.kind == "cosine":
            return 0
        leaves = self.tokens - self.schedule.cooldown_tokens
        if self.anneal:
            leaves = min(leaves, self.anneal.from_tokens)
        return leaves // self.global_batch_tokens

    def trunk(self, tokens: int) -> RunSpec:
        """The same run at a constant rate after its warm-up, for ``tokens``; its checkpoints serve all its branches."""
        return RunSpec.model_validate(
            self.model_dump()
            | {
                "tokens": tokens,
                "schedule": {"kind": "wsd", "warmup_tokens": self.schedule.warmup_tokens, "cooldown_tokens": 0},
                "anneal": None,
            }
        )
