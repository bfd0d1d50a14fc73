"""How a run lies on a cluster: machines, processes, and what of the model each of them holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scaling.errors import UserError
from scaling.record import Record
from scaling.run_spec import RunSpec

__all__ = ["Layout"]

MICRO_BATCH_TOKENS = 8192
"""What a process computes at once where nothing else is asked for."""


class Layout(Record):
    """Processes by machine, one a GPU, and degrees of parallelism; what they leave over is data-parallel in shards."""

    nodes: int = Field(default=1, ge=1)
    gpus_per_node: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cuda"
    tensor: int = Field(default=1, ge=1)
    pipeline: int = Field(default=1, ge=1)
    context: int = Field(default=1, ge=1)
    micro_batch: int | None = Field(default=None, ge=1, description="sequences at once on a data-parallel rank")

    @property
    def processes(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def data(self) -> int:
        """The data-parallel degree."""
        return self.processes // (self.tensor * self.pipeline * self.context)

    def check(self, spec: RunSpec) -> None:
        """:class:`UserError` where the processes can't be laid out so, or can't share a step of ``spec`` equally."""
        model = self.tensor * self.pipeline * self.context
        if self.processes % model:
            raise UserError(
                f"--tensor {self.tensor} x --pipeline {self.pipeline} x --context {self.context} is {model}, which "
                f"does not divide the {self.processes} processes of {self.nodes} x {self.gpus_per_node}: change one"
            )
        if spec.sequences_per_step % self.data:
            near = [count for count in range(1, 2 * self.data) if spec.sequences_per_step % count == 0]
            below, above = max(n for n in near if n < self.data), min((n for n in near if n > self.data), default=None)
            raise UserError(
                f"a step is {spec.sequences_per_step} sequences (global_batch_tokens {spec.global_batch_tokens:,} of "
                f"context {spec.shape.context:,}), which {self.data} data-parallel ranks can't share equally: take "
                f"{below}{f' or {above}' if above else ''}"
            )
        if self.micro_batch and (spec.sequences_per_step // self.data) % self.micro_batch:
            raise UserError(
                f"--micro-batch {self.micro_batch} does not divide the {spec.sequences_per_step // self.data} "
                "sequences of a rank's step: take one that does"
            )

    def micro_batch_of(self, spec: RunSpec) -> int:
        """As asked, or the most sequences of a rank's step that are ``MICRO_BATCH_TOKENS`` at most."""
        if self.micro_batch:
            return self.micro_batch
        of_rank = spec.sequences_per_step // self.data
        most = max(1, MICRO_BATCH_TOKENS // spec.shape.context)
        return next(rows for rows in range(min(most, of_rank), 0, -1) if of_rank % rows == 0)
