"""How fast a run trains and what it takes of the machine, measured without making a step wait for anything.

On a CUDA device a step returns before it is done, so single steps can't be timed from outside. The clock runs over many
steps instead, and is stopped where the host waits for the device anyway: at reports, evaluations and checkpoints, whose
own time is left out. A part's first step, in which kernels are built, is left out too.
"""

from __future__ import annotations

import time

import torch

from trainer.loop.energy import EnergyMeter, nvml_counters, rapl_counters
from trainer.loop.numerics import Numerics
from trainer.loop.resources import device_peak_flops, peak_memory_bytes
from trainer.loop.state import Progress

__all__ = ["RunMeter", "StepClock"]


class StepClock:
    """Seconds that steps took in this process; one clock serves all runs that train in step with each other."""

    def __init__(self, device: str) -> None:
        self.steps, self.seconds = 0, 0.0
        self._device = device
        self._since: float | None = None
        self._counted = 0
        self._first = True

    def start(self) -> None:
        """Run on, if it doesn't."""
        if self._since is None:
            self._since = time.monotonic()

    def count_step(self) -> None:
        self._counted += 1
        if self._first:
            self._first = False
            self._wait()
            self._counted, self._since = 0, None

    def stop(self) -> None:
        """Stand still at the end of all steps so far."""
        if self._since is not None and self._counted:
            self._wait()
            self.seconds += time.monotonic() - self._since
            self.steps += self._counted
        self._counted, self._since = 0, None

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


class RunMeter:
    """The measurements of one part of a run, on top of what ``before`` says of the parts before it.

    started: when the part began, by ``time.monotonic``. peak_flops_per_second: what MFU is a share of, if known, for
    each process that shares the run. Runs that train together share the clock's seconds, and joules, evenly.
    """

    def __init__(
        self,
        before: Progress,
        numerics: Numerics,
        clock: StepClock,
        *,
        started: float,
        tokens_per_step: int,
        flops_per_token: int,
        peak_flops_per_second: float | None,
    ) -> None:
        self.clock = clock
        self._before, self._device, self._together = before, numerics.device, numerics.together
        self._tokens_per_step, self._flops_per_token = tokens_per_step, flops_per_token
        peak = peak_flops_per_second or device_peak_flops(numerics)
        self._peak = None if peak is None else peak * numerics.ranks
        counters = [*rapl_counters(), *(nvml_counters() if numerics.device == "cuda" else [])]
        # They count this machine and this process's GPU, which of several are a part.
        self._energy = EnergyMeter(counters if numerics.ranks == 1 else [])
        self._started = started
        self._lap = (self._tokens, self._seconds)

    @property
    def _tokens(self) -> int:
        return self._before.timed_tokens + self.clock.steps * self._tokens_per_step

    @property
    def _seconds(self) -> float:
        return self._before.timed_seconds + self.clock.seconds / self._together

    def stop(self) -> None:
        """Stop the clock, and read counters if it is time to."""
        self.clock.stop()
        self._energy.update()

    @property
    def tokens_per_second(self) -> float:
        """Over all timed steps, until the clock last stood still."""
        return self._tokens / max(self._seconds, 1e-9)

    def lap(self) -> dict[str, float]:
        """Speed since the last lap, as metrics; empty if no step was timed since."""
        tokens, seconds = self._tokens - self._lap[0], self._seconds - self._lap[1]
        self._lap = (self._tokens, self._seconds)
        if not (tokens and seconds):
            return {}
        rate = tokens / seconds
        share = {} if self._peak is None else {"mfu": rate * self._flops_per_token / self._peak}
        return {"tokens_per_second": rate, **share}

    def totals(self) -> dict[str, float | int | None]:
        """What the run's progress keeps of it, over all parts."""
        self.clock.stop()
        joules, before = self._energy.joules(), self._before.energy_joules
        return {
            "timed_tokens": self._tokens,
            "timed_seconds": self._seconds,
            "wall_seconds": self._before.wall_seconds + time.monotonic() - self._started,
            "energy_joules": None if joules is None or before is None else before + joules / self._together,
        }

    def result(self) -> dict[str, float | int | str | None]:
        """What the run's result says of it."""
        totals, speed = self.totals(), self.tokens_per_second * self._flops_per_token
        return {
            "wall_seconds": totals["wall_seconds"],
            "tokens_per_second": self.tokens_per_second,
            "flops_per_second": speed,
            "mfu": None if self._peak is None else speed / self._peak,
            "peak_memory_bytes": peak_memory_bytes(self._device),
            "energy_joules": totals["energy_joules"],
            "energy_source": self._energy.source,
        }
