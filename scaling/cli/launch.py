"""``scaling launch``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.errors import UserError

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
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Work out the layout for so many; by default for the recommendation's.")
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option("--gpu", "--accelerator", help="Of which kind; by default the recommendation's.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines, laid out as you say.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="Processes a machine, one a GPU.")] = None,
    device: Annotated[Device, typer.Option(help="What the processes compute on.")] = Device.cuda,
    tensor: Annotated[int | None, typer.Option(min=1, help="Tensor-parallel degree; torchtitan's alone.")] = None,
    pipeline: Annotated[int | None, typer.Option(min=1, help="Pipeline stages; torchtitan's alone.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Context-parallel degree; torchtitan's alone.")] = None,
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

    Without a layout the fastest one is worked out for the recommendation's cluster, or for --gpus (`scaling cost`).

    Examples: scaling launch recommendation.yaml --to slurm --to torchtitan
              scaling launch recommendation.yaml --to torchrun --gpus-per-node 8
              scaling launch recommendation.yaml --to slurm --nodes 16 --gpus-per-node 8
              scaling launch recommendation.yaml --to torchtitan --gpus-per-node 8 --tensor 2 --to hf --to table
    """
    from sweeps.workspace import Workspace
    from trainer.launch.job import read_job
    from trainer.launch.placement import Placement
    from trainer.launch.write import write

    said = {
        "nodes": nodes,
        "gpus_per_node": gpus_per_node,
        "tensor": tensor,
        "pipeline": pipeline,
        "context": context,
        "micro_batch": micro_batch,
    }
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    placement = None
    if gpus is not None:
        clash = [f"--{name.replace('_', '-')}" for name in given if name != "gpus_per_node"]
        if device is Device.cpu:
            clash.append("--device cpu")
        if clash:
            raise UserError(f"--gpus has the layout worked out, and {', '.join(clash)} says it: give one of them")
    elif given or device is Device.cpu:
        placement = Placement.by_degrees(device=device.value, **given)
    job = read_job(
        source,
        corpus=corpus,
        workspace=workspace,
        corpora=Workspace(workspace).corpora,
        placement=placement,
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        accelerator=accelerator,
        out=out or Path(f"launch-{source.stem}"),
    )
    written = write(job, [each.value for each in to], force=force)
    if as_json:
        print_json(
            {
                "run_key": job.spec.key,
                "placement": job.placement.model_dump(mode="json"),
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
        if one.layout:
            lines.append(f"{'on':>10} {one.layout}")
        if one.start:
            lines.append(f"{'start':>10} {one.start}")
    # Several targets say the same of one corpus.
    lines += [f"! {note}" for note in dict.fromkeys(note for one in written for note in one.notes)]
    return "\n".join(lines)
