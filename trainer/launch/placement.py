"""Where a run is started: machines, processes, and the layout over them (``scaling.cost.parallel_plan``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from scaling.cost.parallel_plan import Layout, ParallelPlan, layout_line
from scaling.cost.plan import fastest_plan
from scaling.errors import UserError
from scaling.record import Record
from scaling.run_spec import RunSpec

__all__ = ["Placement"]

MICRO_BATCH_TOKENS = 8192
"""What a process computes at once where nothing else is asked for."""
MACHINE = 8
"""Accelerators of a machine where nobody says."""


class Placement(Record):
    """Processes by machine, one a GPU; ``layout.devices`` is their number."""

    nodes: int = Field(default=1, ge=1)
    gpus_per_node: int = Field(default=1, ge=1)
    device: Literal["cpu", "cuda"] = "cuda"
    layout: Layout = Layout(zero_stage=0)
    micro_batch: int | None = Field(
        default=None, ge=1, description="sequences at once on a data-parallel rank, where a person said"
    )
    plan: ParallelPlan | None = None
    """Where the layout was worked out: what it needs and is expected to reach."""

    @classmethod
    def by_degrees(
        cls,
        *,
        nodes: int = 1,
        gpus_per_node: int = 1,
        device: Literal["cpu", "cuda"] = "cuda",
        tensor: int = 1,
        pipeline: int = 1,
        context: int = 1,
        micro_batch: int | None = None,
    ) -> Placement:
        """As a person said it; what the degrees leave over is data-parallel in shards. :class:`UserError` where they
        leave a part of a process."""
        processes, model = nodes * gpus_per_node, tensor * pipeline * context
        if processes % model:
            raise UserError(
                f"--tensor {tensor} x --pipeline {pipeline} x --context {context} is {model}, which "
                f"does not divide the {processes} processes of {nodes} x {gpus_per_node}: change one"
            )
        data = processes // model
        layout = Layout(
            tensor=tensor, pipeline=pipeline, context=context, data=data, zero_stage=3 if data * context > 1 else 0
        )  # fmt: skip
        return cls(nodes=nodes, gpus_per_node=gpus_per_node, device=device, layout=layout, micro_batch=micro_batch)

    @classmethod
    def planned(cls, spec: RunSpec, accelerator: str, gpus: int, gpus_per_node: int | None = None) -> Placement:
        """The fastest layout of ``spec``, its batch kept, over ``gpus`` accelerators in machines of ``gpus_per_node``
        (as many of eight as divide them). :class:`UserError` where there is none."""
        # torchtitan deals key-value heads out, and repeats none.
        whole = spec.shape.kv_heads & -spec.shape.kv_heads
        plan = fastest_plan(
            spec.shape, accelerator, gpus, spec.global_batch_tokens, rounding=0, most_tensor=whole
        )  # fmt: skip
        most = gpus_per_node or MACHINE
        machine = next(size for size in range(min(most, gpus), 0, -1) if gpus % size == 0)
        layout = Layout(**plan.model_dump(include=set(Layout.model_fields)))
        return cls(nodes=gpus // machine, gpus_per_node=machine, layout=layout, plan=plan)

    @property
    def processes(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def line(self) -> str:
        """For people: ``16 machines x 8: 4 tensor x 32 data, ZeRO-3``."""
        if self.processes == 1:
            return "one process"
        machines = "one machine" if self.nodes == 1 else f"{self.nodes:,} machines"
        return f"{machines} x {self.gpus_per_node}: {layout_line(self.layout)}"

    def check(self, spec: RunSpec) -> None:
        """:class:`UserError` where the ranks can't share a step of ``spec`` equally."""
        data = self.layout.data
        if spec.sequences_per_step % data:
            near = [count for count in range(1, 2 * data) if spec.sequences_per_step % count == 0]
            below, above = max(n for n in near if n < data), min((n for n in near if n > data), default=None)
            raise UserError(
                f"a step is {spec.sequences_per_step} sequences (global_batch_tokens {spec.global_batch_tokens:,} of "
                f"context {spec.shape.context:,}), which {data} data-parallel ranks can't share equally: take "
                f"{below}{f' or {above}' if above else ''}"
            )
        if self.micro_batch and (spec.sequences_per_step // data) % self.micro_batch:
            raise UserError(
                f"--micro-batch {self.micro_batch} does not divide the {spec.sequences_per_step // data} "
                "sequences of a rank's step: take one that does"
            )

    def micro_batch_of(self, spec: RunSpec) -> int:
        """As asked or planned, or the most sequences of a rank's step that are ``MICRO_BATCH_TOKENS`` at most."""
        if self.micro_batch:
            return self.micro_batch
        if self.plan is not None:
            return self.layout.micro_batch_sequences
        of_rank = spec.sequences_per_step // self.layout.data
        most = max(1, MICRO_BATCH_TOKENS // spec.shape.context)
        return next(rows for rows in range(min(most, of_rank), 0, -1) if of_rank % rows == 0)
