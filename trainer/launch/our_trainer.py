"""What every way of starting ``scaling train`` has in common: its arguments, and a script's head."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace

from scaling.cost.parallel_plan import ParallelPlan, layout_line
from scaling.cost.plan import evaluate
from scaling.errors import UserError
from trainer.launch.job import Job
from trainer.launch.placement import Placement

__all__ = ["RUN_FILE", "SHUTDOWN_SECONDS", "head", "notes", "runnable", "train_arguments"]

RUN_FILE = "run.yaml"
SHUTDOWN_SECONDS = 600
"""How long torchrun waits for processes that save before it kills them; its own default is 30 s."""


def runnable(job: Job, *, one_machine: bool = False) -> Job:
    """``job`` as ``scaling train`` can train it: a layout that was worked out becomes the nearest that it has, with a
    note; :class:`UserError` where a person asked for what it has not."""
    layout = job.placement.layout
    if not job.trainable:
        raise UserError(
            f"{job.name} has no run: the fit came without a corpus, and scaling train needs one; recommend from a "
            "study, or write a run's file (`scaling train --template`)"
        )
    if job.placement.plan is not None:
        return _nearest(job, job.placement.plan, one_machine)
    if layout.tensor * layout.pipeline * layout.context > 1:
        raise UserError(
            f"--tensor {layout.tensor} --pipeline {layout.pipeline} --context {layout.context}: scaling train shards "
            "the weights data-parallel (FSDP2) and knows no other degrees; leave them out, or export --to torchtitan"
        )
    return job


def _nearest(job: Job, plan: ParallelPlan, one_machine: bool) -> Job:
    """Data-parallel shards on as many of the plan's devices as share a step equally, in whole machines."""
    machine, sequences = job.placement.gpus_per_node, job.spec.sequences_per_step
    most = machine if one_machine else plan.devices
    shares = (count for count in range(most, 0, -1) if count <= machine or count % machine == 0)
    processes = next(count for count in shares if sequences % count == 0)
    each = min(processes, machine)
    placement = Placement.by_degrees(nodes=processes // each, gpus_per_node=each, device=job.placement.device)
    told = job.notes
    if plan.devices > 1:
        account = _account(job, placement, plan.accelerator)
        gib = account.memory.total / 2**30
        why = []
        if plan.tensor * plan.pipeline * plan.context > 1:
            why.append("scaling train shards data-parallel alone (FSDP2)")
        if one_machine and plan.devices > machine:
            why.append("torchrun by hand is for one machine (--to slurm or --to ray take all)")
        if processes < most:
            why.append(f"{sequences:,} sequences a step divide no more of its devices")
        fits = "" if account.fits else ", which does not fit: export --to torchtitan"
        if why:
            told += (
                f"the fastest layout of {plan.devices:,} x {plan.accelerator} is {layout_line(plan)}; "
                f"{', and '.join(why)}: written for {placement.line}, {gib:.3g} of "
                f"{plan.device_bytes / 2**30:.3g} GiB a GPU{fits}",
            )
    return replace(job, placement=placement, notes=told)


def _account(job: Job, placement: Placement, accelerator: str) -> ParallelPlan:
    """What it needs, layers computed again where they must be, as the trainer does."""
    sequences = job.spec.sequences_per_step
    kept = evaluate(job.spec.shape, placement.layout, accelerator, sequences)
    if kept.fits:
        return kept
    again = placement.layout.model_copy(update={"recompute": "full"})
    return evaluate(job.spec.shape, again, accelerator, sequences)


def train_arguments(job: Job) -> list[str]:
    """Of ``scaling train``, but for file, corpus and folder."""
    given = ["--workspace", str(job.workspace.resolve()), "--device", job.placement.device]
    if job.placement.processes > 1:
        # Muon needs its matrices whole.
        given += ["--parallel", "ddp" if job.spec.optimizer.name == "muon" else "fsdp"]
    if job.placement.micro_batch:
        given += ["--micro-batch", str(job.placement.micro_batch)]
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
    if job.placement.nodes > 1:
        said += ("every machine must see this folder, the corpus and the run's folder under the same paths",)
    return said
