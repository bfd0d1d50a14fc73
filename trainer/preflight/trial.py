"""The run's real first steps, its real checkpoint and the steps after it, twice: straight on, and read back.

All in a folder of its own that is thrown away. The processes of a world take part together.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from scaling.run_spec import RunSpec
from trainer.data.run_data import RunData
from trainer.distributed.world import World
from trainer.loop.allocator import return_freed_memory
from trainer.loop.checkpoint import open_folder
from trainer.loop.meter import StepClock
from trainer.loop.numerics import Numerics
from trainer.loop.resources import peak_memory_bytes, reset_peak_memory, resident_bytes
from trainer.loop.run import Run
from trainer.loop.train import applied
from trainer.tracker import NullTracker

__all__ = ["Steps", "Trial"]

FEWEST, MOST = 4, 40
SECONDS = 8.0
"""For the steps before the checkpoint, once there are ``FEWEST``."""
AFTER = 3

Progress = Callable[[str, float], None]


@dataclass
class Steps:
    """Of each step taken: loss in nats a token, gradient norm, seconds, and those that this process computed meanwhile;
    the first one's builds kernels."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    computed_seconds: list[float] = field(default_factory=list)
    bad_step: int | None = None
    """The first step (from 1) whose loss or gradient was no finite number."""


class Notes(NullTracker):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


class Trial:
    """One run tried in ``folder``. Call :meth:`first`, :meth:`save`, :meth:`go_on`, :meth:`restart` in this order."""

    def __init__(
        self, spec: RunSpec, data: RunData, numerics: Numerics, folder: Path, world: World, progress: Progress
    ) -> None:
        self.spec, self.numerics, self.folder = spec, numerics, folder
        self._data, self._world, self._progress = data, world, progress
        self.notes = Notes()
        self.peak_bytes = self.micro_batch = 0
        self._run: Run | None = None

    def _begin(self) -> Run:
        checkpoints = open_folder(self.folder, self.notes.note, self._world)
        run = Run(self.spec, self._data, self.numerics, checkpoints, self.notes, 0, (), self._world)
        run.resume(None)
        run.measure(StepClock(self.numerics.device), None)
        return run

    def first(self) -> Steps:
        """The first steps, as many as ``SECONDS`` hold, and how much memory they took."""
        device, taken = self.numerics.device, Steps()
        return_freed_memory()  # what calibration left with the allocator would hide what the run takes
        before = resident_bytes() if device == "cpu" else 0
        reset_peak_memory(device)
        with applied(self.numerics):
            self._run = run = self._begin()
            most = min(MOST, max(1, self.spec.steps - AFTER))
            started = time.monotonic()
            while len(taken.losses) < most and taken.bad_step is None:
                self._take(run, taken)
                self._progress("trying the first steps", min(1.0, len(taken.losses) / most))
                due = len(taken.losses) >= FEWEST and time.monotonic() - started > SECONDS
                # Of several processes the first one's clock decides for all.
                if self._world.any(self._world.rank == 0 and due):
                    break
        self.peak_bytes = peak_memory_bytes(device) - before
        self.micro_batch = run.state.step.micro_batch_sequences or self.spec.sequences_per_step // self._world.ranks
        return taken

    def save(self) -> tuple[float, float, int]:
        """Write the state as the run does. Seconds that training waits, seconds until it is whole, and bytes.

        Raises ``OSError`` where the disk refuses."""
        run = self._started
        self._world.wait()
        started = time.monotonic()
        run.checkpoints.save(run.state.progress.step, run.state.dump())
        waited = time.monotonic() - started
        run.checkpoints.finish()
        self._world.wait()
        whole = time.monotonic() - started
        size = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())
        return waited, whole, size

    def go_on(self) -> Steps:
        """The next steps, straight on; the model is let go of afterwards."""
        taken, run = Steps(), self._started
        with applied(self.numerics):
            for _ in range(min(AFTER, self.spec.steps - run.state.progress.step)):
                self._take(run, taken)
        self._run = None
        del run
        gc.collect()
        if self.numerics.device == "cuda":
            torch.cuda.empty_cache()
        return taken

    def restart(self, steps: int) -> tuple[int, float, Steps]:
        """Begin anew from what lies in the folder and take ``steps``: at which step it went on, the seconds until it
        did, and the steps."""
        self._progress("starting again from the checkpoint", 0.0)
        if self._world.rank == 0:
            _forget_cached(self.folder)
        self._world.wait()
        taken = Steps()
        with applied(self.numerics):
            started = time.monotonic()
            run = self._begin()
            took, at = time.monotonic() - started, run.state.progress.step
            for _ in range(steps):
                self._take(run, taken)
        return at, took, taken

    @property
    def _started(self) -> Run:
        assert self._run is not None, "the first steps come first"
        return self._run

    def _take(self, run: Run, taken: Steps) -> None:
        started, computed = time.monotonic(), time.process_time()
        x_BT, y_BT = run.next_batch()
        loss = run.state.step.accumulate(x_BT, y_BT)
        run.finish_step(loss)
        taken.losses.append(float(loss))  # waits for the device
        taken.seconds.append(time.monotonic() - started)
        taken.computed_seconds.append(time.process_time() - computed)
        taken.norms.append(run.state.last_norm)
        taken.bad_step = taken.bad_step or run.state.first_bad_step()


def _forget_cached(folder: Path) -> None:
    """Have the files read from the disk, not from the kernel's memory of having written them."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as content:
                os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
