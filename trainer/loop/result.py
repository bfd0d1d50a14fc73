"""What a run ends with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from scaling.record import Record
from trainer.evaluate.domain_loss import DomainLoss
from trainer.system_facts import SystemFacts

__all__ = ["RunResult"]


class RunResult(Record):
    """The end of one run, or of one part of it if it was interrupted.

    Losses are given for a finished run alone; a diverged one has none that could be mistaken for a measurement.
    """

    status: Literal["finished", "diverged", "interrupted"]
    run_key: str
    numerics: str = Field(description="label of the numerics it ran under")
    steps: int
    tokens: int
    loss_nats: float | None = Field(default=None, allow_inf_nan=False, description="held-out loss, nats a token")
    loss_sem: float | None = Field(
        default=None, allow_inf_nan=False, description="its standard error, clustered by work, nats a token"
    )
    bits_per_byte: float | None = Field(default=None, allow_inf_nan=False)
    held_out_tokens: int | None = Field(default=None, description="predicted tokens that the loss is the mean of")
    domains: dict[str, DomainLoss] = Field(
        default={}, description="the held-out loss by domain, if the corpus names any"
    )
    wall_seconds: float = Field(description="over all parts of the run, evaluation and checkpoints included")
    tokens_per_second: float = Field(description="training tokens over the seconds spent in training steps")
    flops_per_second: float | None = Field(default=None, description="exact training FLOPs over the same seconds")
    mfu: float | None = Field(
        default=None,
        description="their share of the peak: of a known accelerator in dense bf16, of a CPU as calibrated in the "
        "run's precision; None if no peak is known",
    )
    peak_memory_bytes: int | None = Field(
        default=None,
        description="most at a time in the run's last part: on CUDA of tensors, on a CPU of the process, with what "
        "earlier runs left it; where the kernel can't reset its mark, since the process began",
    )
    energy_joules: float | None = Field(
        default=None,
        description="by the machine's counters over all parts: of whole packages and cards, other processes included; "
        "None without counters",
    )
    energy_source: str | None = Field(default=None, description="the counters")
    weights_hash: str | None = Field(default=None, description="SHA-256 of all weights; equal runs have equal hashes")
    resumed: int = Field(default=0, description="how many times the run was taken up again from a checkpoint")
    first_step: int = Field(default=0, description="steps taken over from its trunk")
    spikes: tuple[int, ...] = Field(default=(), description="steps (from 1) whose loss or gradient norm stood out")
    rewinds: int = Field(default=0, description="how often it went back behind a spike")

    system: SystemFacts | None = Field(default=None, description="what the last part ran on")

    @model_validator(mode="after")
    def _measured_if_finished(self) -> RunResult:
        measured = (self.loss_nats, self.loss_sem, self.bits_per_byte, self.held_out_tokens, self.weights_hash)
        if self.status == "finished" and any(value is None for value in measured):
            raise ValueError("a finished run carries its losses and the hash of its weights")
        return self
