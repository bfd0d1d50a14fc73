"""``scaling plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import JsonFlag, StudyFile, WorkspaceOption, print_json
from scaling.errors import UserError


def plan(
    study: StudyFile,
    workspace: WorkspaceOption = Path("workspace"),
    runs: Annotated[bool, typer.Option("--runs", help="List every run.")] = False,
    cure: Annotated[
        Path | None,
        typer.Option(metavar="FIT.json", help="Add the runs that this fit asks for, or that narrow it most."),
    ] = None,
    cure_flops: Annotated[float | None, typer.Option(help="With --cure: the most that those may cost.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a study would run, and what it would take, before anything runs. Freezes the plan.

    Prepares the corpus and calibrates this machine if that was not done yet.

    Example: scaling plan quickstart.yaml
    """
    from scaling.cli.conducting import conducting
    from scaling.cli.fits_on_disk import load_fit
    from scaling.cli.plan_page import plan_page, run_table

    if cure_flops is not None and cure is None:
        raise UserError(f"--cure-flops is {cure_flops:g}, and there is no --cure FIT.json that it could bound")
    with conducting(study, workspace, quiet=as_json) as conductor:
        made = conductor.plan()
        if cure is not None:
            made = conductor.cure(made, load_fit(cure), cure_flops)
    if as_json:
        from scaling.design.shared_rate import shared_rate_costs

        cost = made.cost.model_dump(mode="json") | {"usd": made.cost.usd}
        shared = shared_rate_costs([planned.point for planned in made.sweep])
        more = {"makespan_seconds": made.makespan_seconds(), "cost": cost, "shared_rate_costs": shared}
        print_json({**made.model_dump(mode="json"), **more})
    else:
        typer.echo(plan_page(conductor.study, made))
        if runs:
            typer.echo("\n" + run_table(made))
