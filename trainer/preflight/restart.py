"""Does a run that is started again from its checkpoint go on as if it had never stopped, to the bit?"""

from __future__ import annotations

from collections.abc import Sequence

from scaling.quantity import format_bytes
from trainer.preflight.check import Check
from trainer.preflight.trial import Steps

__all__ = ["check_restart"]


def check_restart(
    saved_at: int, found_at: int, straight: Steps, again: Steps, seconds: float, size: int, notes: Sequence[str]
) -> Check:
    """``saved_at`` and ``found_at``: the checkpoint's step, and where the new start went on. ``notes``: what was said
    of the checkpoint meanwhile."""
    damaged = next((note for note in notes if "damaged" in note), None)
    figures: dict[str, float | int | str | None] = {
        "read_seconds": seconds,
        "read_bytes_per_second": size / max(seconds, 1e-9),
        "steps_compared": len(again.losses),
    }
    if damaged or found_at != saved_at:
        return Check(
            name="restart",
            status="fail",
            said=damaged or f"the checkpoint is of step {saved_at}, and the run went on from step {found_at}",
            remedy="the disk does not keep what is written to it: give another folder by --out",
            figures=figures,
        )
    for index, pair in enumerate(zip(straight.losses, again.losses, strict=True)):
        if pair[0] != pair[1] or straight.norms[index] != again.norms[index]:
            return Check(
                name="restart",
                status="fail",
                said=f"step {saved_at + index + 1} gave a loss of {pair[0]!r} straight on, {pair[1]!r} after a restart",
                remedy="this machine does not compute alike twice: look for other numerics (--no-compile, --precision "
                "fp32), and for faulty memory",
                figures=figures | {"step": saved_at + index + 1},
            )
    return Check(
        name="restart",
        status="ok",
        said=f"{format_bytes(size)} read and set up in {seconds:.2f} s; the next {len(again.losses)} losses are equal "
        "to the bit",
        figures=figures,
    )
