"""Does a step fit into memory, by the estimate and as measured?"""

from __future__ import annotations

import os

from scaling.architectures import total_params
from scaling.quantity import format_bytes
from scaling.run_spec import RunSpec
from trainer.loop.memory import USABLE_SHARE, device_memory, estimate_memory
from trainer.loop.numerics import Numerics
from trainer.preflight.check import Check

__all__ = ["check_memory"]

_REMEDY = "take a smaller --micro-batch, --recompute, or more processes with --parallel fsdp"


def check_memory(spec: RunSpec, numerics: Numerics, available: int, measured: int | None, micro_batch: int) -> Check:
    """``available``: bytes on the device before the run (:func:`trainer.loop.memory.device_memory`). ``measured``: the
    most that its first steps took, None if they were not tried. ``micro_batch``: sequences at once."""
    estimate = estimate_memory(spec.shape, micro_batch, numerics, spec.optimizer)
    taken = max(estimate.total, measured or 0)
    # Every process draws the whole model on its host before the weights are cut or moved.
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    drawn, host = 4 * total_params(spec.shape) * local, device_memory("cpu") * local
    figures = {
        "available_bytes": available,
        "estimated_bytes": estimate.total,
        "measured_bytes": measured,
        "micro_batch_sequences": micro_batch,
        "host_bytes": host,
        "drawn_bytes": drawn,
    }
    asked = (
        spec.sequences_per_step // numerics.ranks
        if numerics.micro_batch_sequences is None
        else (min(numerics.micro_batch_sequences, spec.sequences_per_step // numerics.ranks))
    )
    said = (
        f"{format_bytes(estimate.total)} estimated"
        + ("" if measured is None else f", {format_bytes(measured)} measured")
        + f" of {format_bytes(available)} a process, {micro_batch} sequences at once"
    )
    if drawn > host:
        return Check(
            name="memory",
            status="fail",
            said=f"{local} processes draw a whole model each before it is cut: {format_bytes(drawn)} of the machine's "
            f"{format_bytes(host)}",
            remedy="start fewer processes a machine, or launch by torchtitan, which draws in shards",
            figures=figures,
        )
    if taken > available:
        return Check(name="memory", status="fail", said=said, remedy=_REMEDY, figures=figures)
    if taken > USABLE_SHARE * available:
        return Check(
            name="memory", status="warn", said=f"{said}: over {USABLE_SHARE:.0%}", remedy=_REMEDY, figures=figures
        )
    if measured is not None and micro_batch < asked:
        return Check(
            name="memory",
            status="warn",
            said=f"{said}: {asked} did not fit",
            remedy=f"give --micro-batch {micro_batch}, and every start finds it at once",
            figures=figures,
        )
    return Check(name="memory", status="ok", said=said, figures=figures)
