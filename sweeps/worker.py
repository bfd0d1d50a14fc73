"""One worker process: leases runs of one stage from the ledger, the longest first, and trains them until none is left.

It writes to nothing but the ledger and its runs' folders. When told to stop (SIGTERM, or its engine's death) it saves
at the next step's boundary, gives its run back and ends; with the exit code ``STOPPED`` if it was told by a signal, and
``REFUSED`` if its host can't compute as the plan does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from sweeps.failures import FailureKind
from sweeps.host import on_this_host
from sweeps.ledger.ledger import Ledger, Stage
from sweeps.ledger.owner import Owner
from sweeps.ledger.pulse import Pulse
from sweeps.ledger.tracker import LedgerTracker
from sweeps.planning.plan import Plan
from sweeps.standing import FAILURE_LOG
from sweeps.tracking.run_facts import record_facts
from sweeps.worker_exit import REFUSED, STOPPED
from sweeps.workspace import Workspace, cache_folder
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.step import OutOfMemory
from trainer.loop.together import can_train_together, train_together
from trainer.loop.train import train
from trainer.system_facts import system_facts

__all__ = ["main", "work"]

PARENT_POLL_SECONDS = 1.0
WAIT_SECONDS = 0.3
"""Between two looks for a run while all that are left wait for the runs that they branch off."""
LINGER_SECONDS = 3.0
"""How long a worker waits for the next trial that tuning asks for: to start another takes longer."""
_PR_SET_PDEATHSIG = 1


def work(
    workspace: Workspace, study: str, stage: Stage, stopping: threading.Event, checkpoint_seconds: float = 20.0
) -> None:
    """Train runs of ``stage`` until there are none to lease or ``stopping`` is set.

    Raises :class:`UserError` if this host can't compute as the plan does.
    """
    ledger = Ledger(workspace.ledger_url)
    frozen = ledger.plan_of(study)
    if frozen is None:
        raise RuntimeError(f"study {study!r} has no plan in {workspace.ledger_url}")
    plan = Plan.model_validate(frozen[1])
    corpus = Corpus(workspace.corpora / plan.corpus.folder)
    numerics, calibration = on_this_host(plan, cache_folder())
    # A known accelerator is held against its data sheet.
    peak = calibration.peak_flops_per_second(numerics) if numerics.device == "cpu" else None
    owner, facts = Owner.me(), system_facts().model_dump(mode="json")
    busy = time.monotonic()
    with Pulse(ledger, owner) as pulse:
        while not stopping.is_set():
            spec = ledger.lease(study, stage, owner)
            if spec is None:
                lingering = stage == "tune" and time.monotonic() - busy <= LINGER_SECONDS
                if not ledger.is_waiting(study, stage) and not lingering:
                    break
                stopping.wait(WAIT_SECONDS)
                continue
            carrier, branches = ledger.trunk_of(spec.key)
            together = calibration.together(spec.shape, numerics)
            group = [spec]
            if together > 1 and carrier is None and not branches:
                group += ledger.lease_alike(study, stage, owner, spec, together - 1, partial(can_train_together, spec))
            record_facts(ledger, [each.key for each in group], facts)
            trackers = {each.key: LedgerTracker(ledger, each.key, owner) for each in group}
            pulse.watch(trackers.values())
            try:
                _train(
                    group,
                    corpus,
                    numerics,
                    workspace,
                    trackers,
                    carrier,
                    branches,
                    stopping=stopping,
                    ended=partial(_write_down, ledger, owner, trackers),
                    checkpoint_seconds=checkpoint_seconds,
                    peak_flops_per_second=peak,
                )
            except Exception as error:
                traceback.print_exc()
                for each in group:
                    if ledger.fail(each.key, owner, f"{type(error).__name__}: {error}", _kind(error, len(group))):
                        _keep_traceback(workspace.run_folder(each.key))
                continue
            busy = time.monotonic()
    ledger.close()


def _train(
    group: list[RunSpec],
    corpus: Corpus,
    numerics: Numerics,
    workspace: Workspace,
    trackers: Mapping[str, LedgerTracker],
    carrier: str | None,
    branches: Sequence[int],
    *,
    stopping: threading.Event,
    ended: Callable[[RunResult], None],
    **options: Any,
) -> None:
    """One run, from its ``carrier``'s checkpoint if it has one, or several of one shape in one step; ``ended`` is told
    of each. A run that was called off, or given to somebody else, is let go of, and the others of its group go on."""
    folders = [workspace.run_folder(each.key) for each in group]
    if len(group) > 1:
        train_together(
            group,
            corpus,
            numerics.for_together(len(group)),
            directories=folders,
            trackers=list(trackers.values()),
            should_stop=stopping.is_set,
            should_leave=lambda spec: trackers[spec.key].lease_lost,
            ended=ended,
            **options,
        )
        return
    (tracker,) = trackers.values()
    result = train(
        group[0],
        corpus,
        numerics,
        directory=folders[0],
        tracker=tracker,
        should_stop=lambda: stopping.is_set() or tracker.lease_lost,
        trunk=workspace.run_folder(carrier) if carrier else None,
        branches=branches,
        **options,
    )
    ended(result)


def _write_down(ledger: Ledger, owner: Owner, trackers: Mapping[str, LedgerTracker], result: RunResult) -> None:
    """A run's end, or that it waits for somebody to go on with it."""
    trackers[result.run_key].flush()
    if result.status == "interrupted":
        ledger.release(result.run_key, owner)
    else:
        ledger.finish(result.run_key, owner, result.status, result.model_dump(mode="json"))


def _keep_traceback(folder: Path) -> None:
    """Beside the run's checkpoints, where `scaling status` finds it: the worker's own log goes with the worker."""
    with contextlib.suppress(OSError), (folder / FAILURE_LOG).open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{traceback.format_exc()}\n")


def _kind(error: Exception, together: int) -> FailureKind:
    if isinstance(error, OutOfMemory | MemoryError | torch.OutOfMemoryError):
        return "memory" if together == 1 else "crowded"
    return "run"


def _end_with_parent(parent: int, stopping: threading.Event) -> None:
    """Stop when the engine dies, even by SIGKILL: by the kernel's signal where it has one, and by looking."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        stopping.set()

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--study", required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--checkpoint-seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    stopping, told = threading.Event(), threading.Event()

    def stop(*_: object) -> None:
        told.set()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        # A batch system's warning to whole process groups, which whoever started this worker answers.
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent(arguments.parent, stopping)
    try:
        work(Workspace(arguments.workspace), arguments.study, arguments.stage, stopping, arguments.checkpoint_seconds)
    except UserError as error:
        print(error, flush=True)
        sys.exit(REFUSED)
    if told.is_set():
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
