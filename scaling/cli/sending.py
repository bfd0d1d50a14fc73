"""A scored run to MLflow, for the commands that are no study's conductor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.final_run import Scored
    from sweeps.workspace import Workspace

__all__ = ["send"]


def send(space: Workspace, scored: Scored, *, quiet: bool) -> str | None:
    """Send the run to its study's MLflow store; returns the address of its registered model, if it has one there."""
    from scaling.cli.conducting import log_to
    from scaling.cli.run_display import RunDisplay

    log_to(space.logs / f"{scored.study}.log")  # before MLflow is loaded
    from sweeps.tracking.large_run import send_large_run

    (key,) = scored.outcome.run_keys
    with RunDisplay(scored.study, quiet=quiet) as display:
        return send_large_run(space, scored.study, key, display.say, display.step)
