"""What the host of a worker decides for itself: how fast it computes. What it computes is the plan's.

A plan is calibrated where it is made, and workers of other hosts may have other processors. Device, precision,
compilation and kernels change a run's numbers, so they are the plan's everywhere, and a host that can't have them is
refused. How many runs are trained in one step, and the peak that MFU is a share of, are measured there: once a
processor, by the first worker that asks.
"""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path

import torch

from scaling.errors import UserError
from scaling.record import content_hash
from sweeps.planning.plan import Plan
from trainer.loop.calibrate import calibrate
from trainer.loop.calibration import Calibration
from trainer.loop.numerics import Numerics, processor_name

__all__ = ["on_this_host"]

RUINOUS = 4.0
"""bf16 products this much slower than fp32 make a processor useless for a plan in bf16: eighty times was measured."""


def on_this_host(plan: Plan, cache: Path) -> tuple[Numerics, Calibration]:
    """The plan's numerics as this host has them, and the calibration of its processor, kept in the folder ``cache``.

    Raises :class:`UserError` if the host can't compute as the plan does.
    """
    try:
        plan.numerics.check_available()
    except UserError as error:
        raise _refused(str(error)) from None
    processor = processor_name(plan.numerics.device)
    numerics = plan.numerics.model_copy(update={"processor": processor, "torch": str(torch.__version__)})
    calibration = plan.calibration
    if processor != calibration.processor:
        calibration = _calibrated(plan, processor, cache)
    times = calibration.matmul_gflops_fp32 / calibration.matmul_gflops_bf16
    if numerics.precision == "bf16" and times > RUINOUS:
        raise _refused(f"the plan computes in bf16, whose products are {times:.0f} times slower than fp32's here")
    return numerics, calibration


def _calibrated(plan: Plan, processor: str, cache: Path) -> Calibration:
    made = plan.calibration
    shapes = [speed.shape for speed in made.speeds]
    name = content_hash([processor, made.batch_sequences, [shape.model_dump(mode="json") for shape in shapes]])
    cache.mkdir(parents=True, exist_ok=True)
    # Workers that start side by side would disturb each other's measurement: one measures, the others read.
    with (cache / f"host-{name[:16]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(f"the plan was calibrated on {made.processor}; here is {processor}", flush=True)
        return calibrate(
            shapes,
            made.batch_sequences,
            device=made.device,
            precision=plan.numerics.precision,
            cache=cache / f"host-{name[:16]}.json",
        )


def _refused(why: str) -> UserError:
    return UserError(
        f"host {socket.gethostname()} can't train this study: {why}; keep its workers to other hosts (execute), or "
        "give the study another name and plan it there"
    )
