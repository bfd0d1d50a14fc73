"""``scaling posttrain``."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sweeps.workspace import Workspace
    from trainer.posttrain.pipeline import Pipeline
    from trainer.posttrain.stage import StageFolder


def posttrain(
    pipeline: Annotated[
        Path | None, typer.Argument(metavar="PIPELINE.yaml", help="The stages (`--template` shows how).")
    ] = None,
    workspace: WorkspaceOption = Path("workspace"),
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Up to this stage: sft, pairs, reward, dpo, ppo, …")
    ] = None,
    template: Annotated[bool, typer.Option("--template", help="Print a file with every key explained.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train a base model further: sft, reward model, then PPO, DPO or their relatives, and set them side by side.

    Each stage is kept by the hash of what goes into it: the same command continues what was stopped, and trains again
    only what a changed setting changes. Each model lies in the Hugging Face layout.

    Examples: scaling posttrain --template > assistant.yaml && scaling posttrain assistant.yaml
              scaling posttrain assistant.yaml --only sft
    """
    from importlib import resources

    if template:
        text = resources.files("trainer.posttrain").joinpath("pipeline_template.yaml").read_text(encoding="utf-8")
        typer.echo(text, nl=False)
        return
    if pipeline is None:
        raise UserError("PIPELINE.yaml is missing: `scaling posttrain --template > mine.yaml` writes one")

    from scaling.cli.posttrain_page import post_training_page
    from scaling.cli.run_display import RunDisplay
    from scaling.cli.train import StopSignals
    from sweeps.workspace import Workspace
    from trainer.posttrain.chain import PostTraining
    from trainer.posttrain.pipeline import load_pipeline
    from trainer.posttrain.stage import Interrupted

    asked = load_pipeline(pipeline)
    if only is not None and only not in asked.stage_names:
        raise UserError(f"--only {only} is no stage of {pipeline}: it has {', '.join(asked.stage_names)}")
    space = Workspace(workspace)
    ended: list[dict[str, Any]] = []
    done: list[tuple[int, str, StageFolder]] = []
    with RunDisplay(asked.name, quiet=as_json) as display, StopSignals() as stop:
        stop.listen()
        base = _base(asked, workspace, space, display.say)
        work = PostTraining(
            asked,
            base,
            space.post_trained,
            progress=lambda title, what, share, metrics: display.step(_line(title, what, metrics), share),
            should_stop=lambda: stop.received is not None,
        )
        try:
            for seed, name, folder in work.stages(until=only):
                result = folder.result()
                assert result is not None, "a stage that ended has a result"
                done.append((seed, name, folder))
                ended.append(
                    {"seed": seed, "stage": name, "folder": str(folder.path), **result.model_dump(mode="json")}
                )
                display.say(f"{name} (seed {seed})  {folder.path}")
                for note in result.notes:
                    display.say(f"  {note}")
        except Interrupted:
            typer.echo("scaling: stopped and saved; the same command continues", err=True)
            raise typer.Exit(128 + (stop.received or signal.SIGINT)) from None
    page = _report(asked, pipeline, space, done, quiet=as_json)
    tracked = _track(asked, space, done, quiet=as_json)
    if as_json:
        print_json({"name": asked.name, "base": str(base), "report": page, "mlflow": tracked, "stages": ended})
    else:
        typer.echo(post_training_page(ended))
        if page:
            typer.echo(f"report    {page}")
        if tracked:
            typer.echo(f"mlflow    {tracked}")


def _report(
    asked: Pipeline, file: Path, space: Workspace, done: Sequence[tuple[int, str, StageFolder]], *, quiet: bool
) -> str | None:
    """The page of all that has ended, once policies were set side by side."""
    if not any(stage == "compare" for _, stage, _ in done):
        return None
    from analysis.post_training_data import post_training_view
    from analysis.post_training_report import write_post_training
    from scaling.cli.run_display import RunDisplay
    from sweeps.workspace import shown

    with RunDisplay(asked.name, quiet=quiet) as display:
        display.step("writing the report")
        view = post_training_view(asked.name, done)
        path = space.post_trained / asked.name / "report.html"
        return shown(write_post_training(view, path, f"scaling posttrain {file} --workspace {shown(space.root)}"))


def _track(
    asked: Pipeline, space: Workspace, done: Sequence[tuple[int, str, StageFolder]], *, quiet: bool
) -> str | None:
    """The address of the pipeline's run in MLflow, with all that has ended."""
    if asked.track.mlflow is None:
        return None
    from scaling.cli.conducting import log_to
    from scaling.cli.run_display import RunDisplay

    log_to(space.logs / f"posttrain-{asked.name}.log")  # before MLflow is loaded
    from sweeps.tracking.post_training import send_stages

    with RunDisplay(asked.name, quiet=quiet) as display:
        display.step("sending to MLflow")
        return send_stages(space, asked.track.mlflow, asked.name, done, display.say)


def _base(asked: Pipeline, workspace: Path, space: Workspace, say: Callable[[str], None]) -> Path:
    """The base model in the Hugging Face layout: the folder that was named, or a run of ours exported once."""
    from scaling.cli.run_reference import find_run
    from trainer.export.hugging_face import export
    from trainer.posttrain.local_model import is_model_folder

    if is_model_folder(Path(asked.base)):
        return Path(asked.base)
    trained = find_run(asked.base, workspace)
    out = space.post_trained / f"base-{trained.spec.key[:16]}"
    if not out.exists():
        export(trained, out, force=False, note=say)
    return out


def _line(title: str, what: str, metrics: Any) -> str:
    shown = [f"{name} {metrics[name]:.4g}" for name in ("loss", "score", "gold", "kl", "reward") if name in metrics]
    return " · ".join([title, what, *shown])
