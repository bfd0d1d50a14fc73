"""The executor that a study file asks for."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from scaling.errors import UserError
from sweeps.execute_settings import LocalExecute, RayExecute, SlurmExecute
from sweeps.executors import Executor
from sweeps.executors.command import WorkerCommand
from sweeps.executors.local import LocalExecutor

__all__ = ["executor_for"]


def executor_for(
    execute: LocalExecute | RayExecute | SlurmExecute, workspace: Path, study: str, threads: int
) -> Executor:
    """Raises :class:`UserError` if what ``execute`` asks for is not installed, or can't be reached from here."""
    command = WorkerCommand(
        workspace=str(workspace), study=study, threads=threads, checkpoint_seconds=execute.checkpoint_seconds
    )
    try:
        if isinstance(execute, RayExecute):
            # The servers of a cluster of our own listen on every address of the machine: nobody without this secret may
            # use them. Ray reads it when it is imported.
            if execute.address is None and "RAY_AUTH_MODE" not in os.environ:
                os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            from sweeps.executors.ray import RayExecutor

            return RayExecutor(command, execute)
        if isinstance(execute, SlurmExecute):
            from sweeps.executors.slurm import SlurmExecutor

            return SlurmExecutor(command, execute)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "submitit"):
            raise
        raise UserError(
            f"execute.on is {execute.on}, and {error.name} is not installed: pip install 'lossfrontier[{execute.on}]'"
        ) from None
    return LocalExecutor(command)
