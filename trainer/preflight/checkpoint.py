"""How fast is a checkpoint written, and how much of the run's time goes there?"""

from __future__ import annotations

from scaling.quantity import format_bytes
from trainer.preflight.check import Check

__all__ = ["check_checkpoint", "checkpoint_refused"]

MOST_SHARE = 0.05
"""Of the run's time, in writing checkpoints."""


def check_checkpoint(waited: float, whole: float, size: int, every_seconds: float) -> Check:
    """``waited``: seconds that training stood still. ``whole``: until the checkpoint was on the disk."""
    share = waited / (every_seconds + waited)
    speed = size / max(whole, 1e-9)
    figures: dict[str, float | int | str | None] = {
        "checkpoint_bytes": size,
        "write_seconds": whole,
        "waited_seconds": waited,
        "write_bytes_per_second": speed,
        "share_of_time": share,
        "checkpoint_seconds": every_seconds,
    }
    said = (
        f"{format_bytes(size)} written in {whole:.2f} s ({format_bytes(speed)}/s); training waits {waited:.2f} s "
        f"every {every_seconds:g} s"
    )
    if whole > every_seconds or share > MOST_SHARE:
        enough = max(whole, waited * (1 / MOST_SHARE - 1))
        return Check(
            name="checkpoint",
            status="warn",
            said=f"{said}, {share:.0%} of the run",
            remedy=f"give --checkpoint-seconds {max(60, round(2 * enough)):d}, or a faster disk by --out",
            figures=figures,
        )
    return Check(name="checkpoint", status="ok", said=said, figures=figures)


def checkpoint_refused(error: OSError, size: int) -> Check:
    """The disk took none of ``size`` bytes."""
    return Check(
        name="checkpoint",
        status="fail",
        said=f"a checkpoint of {format_bytes(size)} can't be written: {error.strerror or error}",
        remedy="free some room, raise the quota or the limit of file sizes, or give another folder by --out",
        figures={"checkpoint_bytes": size},
    )
