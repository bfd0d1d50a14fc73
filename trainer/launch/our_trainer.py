"""What every way of starting ``scaling train`` has in common: its arguments, and a script's head."""

from __future__ import annotations

import shlex
import sys

from scaling.errors import UserError
from trainer.launch.job import Job

__all__ = ["RUN_FILE", "SHUTDOWN_SECONDS", "check", "head", "notes", "train_arguments"]

RUN_FILE = "run.yaml"
SHUTDOWN_SECONDS = 600
"""How long torchrun waits for processes that save before it kills them; its own default is 30 s."""


def check(job: Job) -> None:
    """:class:`UserError` where ``scaling train`` can't train the job as it is laid out."""
    layout = job.layout
    if not job.trainable:
        raise UserError(
            f"{job.name} has no run: the fit came without a corpus, and scaling train needs one; recommend from a "
            "study, or write a run's file (`scaling train --template`)"
        )
    if layout.tensor * layout.pipeline * layout.context > 1:
        raise UserError(
            f"--tensor {layout.tensor} --pipeline {layout.pipeline} --context {layout.context}: scaling train shards "
            "the weights data-parallel (FSDP2) and knows no other degrees; leave them out, or export --to torchtitan"
        )


def train_arguments(job: Job) -> list[str]:
    """Of ``scaling train``, but for file, corpus and folder."""
    given = ["--workspace", str(job.workspace.resolve()), "--device", job.layout.device]
    if job.layout.processes > 1:
        # Muon needs its matrices whole.
        given += ["--parallel", "ddp" if job.spec.optimizer.name == "muon" else "fsdp"]
    if job.layout.micro_batch:
        given += ["--micro-batch", str(job.layout.micro_batch)]
    return given


def head(job: Job, what: str) -> list[str]:
    """The comment that every script begins with, and what can be changed by the environment."""
    corpus = "" if job.corpus is None else shlex.quote(job.corpus)
    missing = ":?where the corpus is: a tokenised folder with the run's data_key, or its source" if not corpus else ""
    return [
        f"# {job.title}.",
        f"# Written by `scaling launch`. {what}",
        "# Stopped at any moment (SIGTERM, Ctrl-C) it saves; started again it goes on from there. Further arguments go",
        "# to `scaling train`: --preflight tries everything first and trains nothing.",
        "set -euo pipefail",
        f"PYTHON=${{PYTHON:-{shlex.quote(sys.executable)}}}",
        f"CORPUS=${{CORPUS{missing}}}" if missing else f"CORPUS=${{CORPUS:-{corpus}}}",
        f"RUN=${{RUN:-{shlex.quote(str(job.out / 'run'))}}}",
        # More threads on shared cores are far slower (sweeps/executors/command.py).
        "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}",
    ]


def notes(job: Job) -> tuple[str, ...]:
    said = job.notes
    if job.corpus is None:
        said += (f"the corpus (data_key {job.spec.data_key[:16]}) is not here: set CORPUS when the script is started",)
    if job.layout.nodes > 1:
        said += ("every machine must see this folder, the corpus and the run's folder under the same paths",)
    return said
