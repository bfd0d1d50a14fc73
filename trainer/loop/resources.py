"""What a run takes of its machine: peak memory, and the peak speed that its own is held against."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from scaling.hardware import peak_of_device
from trainer.loop.numerics import Numerics

__all__ = ["device_peak_flops", "peak_memory_bytes", "reset_peak_memory", "resident_bytes"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CLEAR_HIGH_WATER_MARK = "5"


def reset_peak_memory(device: str) -> None:
    """Let :func:`peak_memory_bytes` begin anew, with what is in use now.

    A worker trains several runs one after another. What an earlier one left with the allocator still counts, since it
    is held. Where the kernel has no way to reset the mark, it stays that of the process.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            _CLEAR.write_text(_CLEAR_HIGH_WATER_MARK, encoding="ascii")


def peak_memory_bytes(device: str) -> int:
    """The most memory in use since the reset: of tensors on a CUDA device, of the whole process (resident) on a CPU."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    # getrusage's mark is handed on by a parent process and can't be reset; the kernel's own is the process's.
    if (mark := _status_bytes("VmHWM:")) is not None:
        return mark
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """What this process has in memory now; 0 where the kernel doesn't say."""
    return _status_bytes("VmRSS:") or 0


def _status_bytes(field: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None


def device_peak_flops(numerics: Numerics) -> float | None:
    """The data sheet's dense bf16 FLOP/s of the CUDA devices, one a rank, whatever the precision, as MFU is counted;
    None of a CPU or a device that the table of accelerators lacks."""
    peak = peak_of_device(torch.cuda.get_device_name()) if numerics.device == "cuda" else None
    return None if peak is None else peak * numerics.ranks
