"""Joules from the machine's own counters: RAPL for CPU packages and memory, NVML for an NVIDIA GPU.

A counter measures the whole package or card, whoever else runs on it, and is exact where power sampled every few
seconds, or guessed from a data sheet, is not. Where there is none, or the system lets only root read it, there is no
figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

__all__ = ["Counter", "EnergyMeter", "nvml_counters", "rapl_counters"]

_POWERCAP = Path("/sys/class/powercap")
_READ_SECONDS = 10.0
"""A 32-bit counter of a package that draws 400 W comes round after some three minutes."""


@dataclass(frozen=True)
class Counter:
    """Joules since some moment in the past; it starts again at zero after ``range_joules``, if that is not None."""

    name: str
    read: Callable[[], float]
    range_joules: float | None = None


class EnergyMeter:
    """Joules since it was made; :meth:`update` is to be called every minute, and costs nothing if called more often."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = list(counters)
        self._before = [counter.read() for counter in self._counters]
        self._joules = 0.0
        self._read_at = time.monotonic()

    @property
    def source(self) -> str | None:
        """The counters' names, or None if there is none."""
        return ", ".join(counter.name for counter in self._counters) or None

    def update(self) -> None:
        """Read the counters if the last time is a while ago."""
        if self._counters and time.monotonic() - self._read_at >= _READ_SECONDS:
            self.joules()

    def joules(self) -> float | None:
        """So far; None without a counter, and from the moment that one can't be read any more."""
        self._read_at = time.monotonic()
        try:
            now = [counter.read() for counter in self._counters]
        except (OSError, ValueError):
            self._counters = []
        if not self._counters:
            return None
        for counter, before, after in zip(self._counters, self._before, now, strict=True):
            came_round = after < before and counter.range_joules is not None
            self._joules += after - before + (counter.range_joules or 0.0) * came_round
        self._before = now
        return self._joules


def rapl_counters(powercap: Path = _POWERCAP) -> list[Counter]:
    """Linux's counters of the CPU packages and of the memory beside them; empty where they are missing or only root's.

    Zones ``intel-rapl:N`` (AMD's too) are packages or the platform around them; of a package's own zones only ``dram``
    is outside it. ``intel-rapl-mmio`` shows the same packages again.
    """
    found = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):
            name = (zone / "name").read_text(encoding="ascii").strip()
            if name.startswith("package") or name == "dram":
                counter = Counter(
                    name=f"rapl {zone.name.removeprefix('intel-rapl:')} {name}",
                    read=partial(_microjoules, zone / "energy_uj"),
                    range_joules=_microjoules(zone / "max_energy_range_uj"),
                )
                counter.read()
                found.append(counter)
    return found


def _microjoules(path: Path) -> float:
    return int(path.read_text(encoding="ascii")) / 1e6


def nvml_counters() -> list[Counter]:
    """The energy counter of torch's current CUDA device; empty without ``nvidia-ml-py``."""
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        # NVML numbers all cards, torch those that CUDA_VISIBLE_DEVICES leaves.
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # no driver, or a card before Volta
        return []

    def joules() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except pynvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    return [Counter("nvml", joules)]
