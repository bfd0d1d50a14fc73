"""``scaling launch``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json

if TYPE_CHECKING:
    from trainer.launch.write import Written


class To(StrEnum):
    torchrun = "torchrun"
    slurm = "slurm"
    ray = "ray"
    torchtitan = "torchtitan"
    hf = "hf"
    table = "table"


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


def launch(
    source: Annotated[
        Path, typer.Argument(metavar="RECOMMENDATION.yaml", help="A recommendation, or what `scaling train` reads.")
    ],
    to: Annotated[
        list[To],
        typer.Option(
            help="torchrun: a script for one machine, or one process. slurm, ray: for many. torchtitan: its 0.3.0. "
            "hf: config.json. table: every number. May be given several times."
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="By default launch-NAME in this folder.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Processes a machine, one a GPU.")] = 1,
    device: Annotated[Device, typer.Option(help="What the processes compute on.")] = Device.cuda,
    tensor: Annotated[int, typer.Option(min=1, help="Tensor-parallel degree; torchtitan's alone.")] = 1,
    pipeline: Annotated[int, typer.Option(min=1, help="Pipeline stages; torchtitan's alone.")] = 1,
    context: Annotated[int, typer.Option(min=1, help="Context-parallel degree; torchtitan's alone.")] = 1,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Sequences at once; by default what fits.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(metavar="DIR|SOURCE", help="By default the workspace's, by the run's data_key.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that lie there.")] = False,
    workspace: WorkspaceOption = Path("workspace"),
    as_json: JsonFlag = False,
) -> None:
    """Write files that start a recommended run: by our trainer here, under SLURM or Ray, by torchtitan, or to be read.

    Examples: scaling launch recommendation.yaml --to torchrun --gpus-per-node 8
              scaling launch recommendation.yaml --to slurm --nodes 16 --gpus-per-node 8
              scaling launch recommendation.yaml --to torchtitan --gpus-per-node 8 --tensor 2 --to hf --to table
    """
    from sweeps.workspace import Workspace
    from trainer.launch.job import read_job
    from trainer.launch.layout import Layout
    from trainer.launch.write import write

    layout = Layout(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        device=device.value,
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        micro_batch=micro_batch,
    )
    job = read_job(
        source,
        corpus=corpus,
        workspace=workspace,
        corpora=Workspace(workspace).corpora,
        layout=layout,
        out=out or Path(f"launch-{source.stem}"),
    )
    written = write(job, [each.value for each in to], force=force)
    if as_json:
        print_json(
            {
                "run_key": job.spec.key,
                "layout": layout.model_dump(mode="json") | {"data": layout.data},
                "targets": [one.model_dump(mode="json") for one in written],
            }
        )
    else:
        typer.echo(f"{job.title}\n{_page(written)}")


def _page(written: list[Written]) -> str:
    from sweeps.workspace import shown

    lines = []
    for one in written:
        lines.append(f"{one.target:<11}{', '.join(shown(Path(file)) for file in one.files)}")
        if one.start:
            lines.append(f"{'start':>10} {one.start}")
    # Several targets say the same of one corpus.
    lines += [f"! {note}" for note in dict.fromkeys(note for one in written for note in one.notes)]
    return "\n".join(lines)
