"""Every number of a recommendation as a plain table: CSV for programs, Markdown for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from scaling import architectures
from trainer.launch.job import Exported, Job

__all__ = ["export"]

_INTERVAL = {"estimate", "low", "high"}
Row = tuple[str, Any, Any, Any]


def export(job: Job) -> Exported:
    rows = [*_derived(job), *_flat(job.document)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("name", "value", "low", "high"))
    writer.writerows(rows)
    lines = [f"# {job.title}", "", "| name | value | low | high |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return Exported(files={"table.csv": buffer.getvalue(), "table.md": "\n".join(lines) + "\n"}, notes=job.notes)


def _derived(job: Job) -> Iterator[Row]:
    """What follows from the run and is written nowhere in its file."""
    spec, layout = job.spec, job.placement.layout
    known = architectures.get(spec.shape.architecture)
    counts = known.count_parameters(spec.shape)
    flops_per_token = known.training_flops_per_token(spec.shape)
    for name, value in {
        "run_key": spec.key,
        "params_total": counts.total,
        "params_nonembedding": counts.nonembedding,
        "params_with_head": counts.with_head,
        "training_flops_per_token": flops_per_token,
        "training_flops": float(flops_per_token) * spec.tokens,
        "steps": spec.steps,
        "sequences_per_step": spec.sequences_per_step,
        "warmup_steps": spec.schedule.warmup_tokens / spec.global_batch_tokens,
        "cooldown_steps": spec.schedule.cooldown_tokens / spec.global_batch_tokens,
        "processes": job.placement.processes,
        "data_parallel": layout.data,
        "tensor_parallel": layout.tensor,
        "pipeline_parallel": layout.pipeline,
        "context_parallel": layout.context,
        "micro_batch_sequences": job.placement.micro_batch_of(spec),
    }.items():
        yield name, value, None, None


def _flat(value: Any, name: str = "") -> Iterator[Row]:
    """Leaves by their path; an estimate with its bounds is one row."""
    if isinstance(value, Mapping) and value.keys() == _INTERVAL:
        yield name, value["estimate"], value["low"], value["high"]
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{index}]")
    else:
        yield name, value, None, None


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
