"""Opens a study for a command: its file, its workspace, its lock, its display, and a clean stop on Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.conduct import Conductor

__all__ = ["conducting", "log_to"]


@contextmanager
def conducting(
    study_file: Path, workspace: Path, *, quiet: bool = False, workers: int | None = None
) -> Iterator[Conductor]:
    """The conductor of the study in ``study_file``, alone on it until the block ends."""
    from scaling.cli.display import StudyDisplay
    from sweeps.conduct import Conductor
    from sweeps.engine import Interrupted
    from sweeps.study import load_study
    from sweeps.workspace import Workspace

    study = load_study(study_file)
    space = Workspace(workspace)
    log_to(space.logs / f"{study.name}.log")

    def terminate(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    # Ctrl-C raises KeyboardInterrupt by itself; SIGTERM must unwind as well, so that nothing half-written stays.
    signal.signal(signal.SIGTERM, terminate)
    with StudyDisplay(study.name, quiet=quiet) as display:

        def waiting() -> None:
            display.say(f"another process is conducting {study.name!r} in this workspace; waiting for it to end")

        with space.conducting(study.name, waiting):
            conductor = Conductor(study, space, display)
            if workers:
                conductor.workers = workers
            yield conductor


def log_to(path: Path) -> None:
    """Warnings of the libraries that we use go to a file: they are for whoever looks into a fault."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # MLflow has a handler of its own on standard error, which would write into the live display.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
