"""One training run, from its specification to its held-out loss; ``trainer.loop.step`` is one step."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from scaling.run_spec import RunSpec
from trainer.data.run_data import RunData
from trainer.data.shards import Corpus
from trainer.distributed.world import ALONE, World
from trainer.loop.allocator import keep_freed_memory
from trainer.loop.checkpoint import open_folder
from trainer.loop.meter import StepClock
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.run import Run
from trainer.models import kernels, model_class
from trainer.tracker import NullTracker, Tracker

__all__ = ["CHECKPOINT_SECONDS", "applied", "train"]

CHECKPOINT_SECONDS = 20.0
"""Between two checkpoints, unless something else is asked for: what a killed process loses at most."""


def train(
    spec: RunSpec,
    corpus: Corpus,
    numerics: Numerics,
    *,
    directory: Path,
    tracker: Tracker,
    should_stop: Callable[[], bool],
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    evaluations: int = 12,
    annealing_corpus: Corpus | None = None,
    trunk: Path | None = None,
    branches: Collection[int] = (),
    peak_flops_per_second: float | None = None,
    world: World = ALONE,
) -> RunResult:
    """Train ``spec`` to its end, or until ``should_stop`` is true at a step's boundary.

    annealing_corpus: what ``spec.anneal`` switches to. trunk: the folder of a run with the same ``trunk_key``, from
    whose checkpoint for branches a run without checkpoints of its own starts; its losses and weights are to the bit
    those of the run trained straight through. branches: steps at which to keep such a checkpoint for others.
    peak_flops_per_second: what MFU is a share of; None is the data sheet's figure of a known accelerator, else unknown.
    world: the processes that train the run together; each calls this with the same arguments, and only the first one's
    tracker is told anything.

    Checkpoints go to ``directory``; a run that has some goes on from the newest, with the same losses to the bit under
    the same numerics. Its losses may be looked at seldom, but none that isn't finite gets past a checkpoint or a
    result: the run is then "diverged" and has no loss.

    Raises :class:`UserError` if the corpus is not the specification's or the machine can't compute as ``numerics`` say.
    """
    numerics.check_available()
    world.check(spec, numerics)
    model_class(spec.shape.architecture)
    data = RunData(spec, corpus, annealing_corpus)
    if world.rank > 0:
        tracker = NullTracker()

    with applied(numerics):
        checkpoints = open_folder(directory, tracker.note, world)
        run = Run(spec, data, numerics, checkpoints, tracker, evaluations, branches, world)
        run.resume(open_folder(trunk, tracker.note, world) if trunk else None)
        run.measure(StepClock(numerics.device), peak_flops_per_second)
        status = run.train(should_stop, checkpoint_seconds)
        result = run.result(status)
        checkpoints.finish()
        return result


@contextmanager
def applied(numerics: Numerics) -> Iterator[None]:
    """Threads and determinism of the process as ``numerics`` say, and as they were afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_num_threads(numerics.threads)
    keep_freed_memory()
    if numerics.device == "cuda":
        # cuBLAS sums in one order only with a workspace of its own, read when its first product is taken.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory would cost a tenth of the step and only hides reads that no kernel of ours makes.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with kernels.used(numerics.kernels):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
