"""How one run is to be computed: as asked, and by calibration where nothing was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from scaling.architectures import training_flops
from scaling.record import Record, content_hash
from scaling.run_spec import RunSpec
from trainer.loop.calibrate import Progress, calibrate
from trainer.loop.memory import device_memory, micro_batch_that_fits
from trainer.loop.numerics import Numerics, Parallel, Precision

__all__ = ["NumericsWish"]

GUESSED_FLOPS_PER_SECOND = 4e10
"""Of a core; only to guess whether the run is long enough for compilation to be timed."""


class NumericsWish(Record):
    """What somebody asked for; None leaves it open."""

    device: Literal["cpu", "cuda"] | None = None
    precision: Precision | None = None
    compiled: bool | None = None
    kernels: bool | None = None
    threads: int | None = Field(default=None, ge=1)
    micro_batch_sequences: int | None = Field(default=None, ge=1)
    recompute: bool | None = None
    parallel: Parallel = "none"
    ranks: int = 1
    """How the processes that were started share the run; never open."""

    @property
    def device_here(self) -> Literal["cpu", "cuda"]:
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def granted_by(self, numerics: Numerics) -> bool:
        """Whether ``numerics`` are of this machine and do all that was asked for."""
        if numerics.device == "cuda" and not torch.cuda.is_available():
            return False
        asked = self.model_dump(exclude_none=True)
        return numerics == numerics.model_copy(update=asked) and _here(numerics)

    def choose(self, spec: RunSpec, cache: Path, progress: Progress) -> tuple[Numerics, float | None]:
        """Numerics for ``spec``: as many sequences at once as memory holds; precision and compilation by a calibration
        on its shape, kept in the folder ``cache``, unless both were asked for; one thread of a CPU.

        Our kernels are used where they are faster, unless something they can't do was asked for.

        With them goes what a CPU's peak FLOP/s were found to be, of all processes, which MFU is a share of.

        Raises :class:`UserError` if the run can't be trained here.
        """
        device = self.device_here
        asked = self.model_dump(exclude_none=True) | {"device": device}
        plain = Numerics(
            device=device,
            processor="",
            precision=self.precision or "fp32",
            recompute=bool(self.recompute),
            parallel=self.parallel,
            ranks=self.ranks,
        )
        plain.check_available()
        fitting = micro_batch_that_fits(spec, plain, device_memory(device))
        if fitting < spec.sequences_per_step // self.ranks:
            asked.setdefault("micro_batch_sequences", fitting)
        if (self.threads or 1) > 1 or self.compiled or device != "cpu":
            asked.setdefault("kernels", False)
        if self.precision is not None and self.compiled is not None and "kernels" in asked:
            return Numerics(**asked), None
        rows = min(self.micro_batch_sequences or fitting, fitting)
        guessed = training_flops(spec.shape, spec.tokens) / GUESSED_FLOPS_PER_SECOND
        measured = calibrate(
            [spec.shape],
            rows,
            device=device,
            cache=cache / f"{content_hash([device, rows, spec.shape.model_dump(mode='json')])[:16]}.json",
            progress=progress,
            planned_seconds=guessed if self.compiled is None else None,
        )
        short = measured.choose()
        seconds = measured.seconds(spec.shape, spec.tokens, short) if self.compiled is None else None
        numerics = measured.choose(seconds, self.precision).model_copy(update=asked)
        peak = measured.peak_flops_per_second(numerics) if device == "cpu" else None
        return numerics, None if peak is None else peak * self.ranks


def _here(numerics: Numerics) -> bool:
    here = Numerics(device=numerics.device)
    return (numerics.processor, numerics.torch) == (here.processor, here.torch)
