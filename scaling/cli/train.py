"""``scaling train``."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import JsonFlag, WorkspaceOption, print_json
from scaling.errors import UserError

if TYPE_CHECKING:
    from scaling.recommendation import Recommendation
    from scaling.run_spec import RunSpec
    from sweeps.workspace import Workspace
    from trainer.distributed.world import World
    from trainer.loop.numerics import Numerics
    from trainer.loop.result import RunResult
    from trainer.numerics_choice import NumericsWish
    from trainer.run_from_file import RunPlaces

HANDED_ON_SECONDS = 10.0
"""A signal to a whole group of processes comes twice to those under torchrun, which hands it on too."""


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class PrecisionChoice(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class ParallelChoice(StrEnum):
    ddp = "ddp"
    fsdp = "fsdp"


def train(
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC.yaml", help="One run, or a recommendation (`--template` shows how).")
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(metavar="DIR|SOURCE", help="A tokenised corpus's folder, or other text."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run's folder; by default WORKSPACE/trained/NAME-KEY.")
    ] = None,
    workspace: WorkspaceOption = Path("workspace"),
    device: Annotated[Device, typer.Option(help="auto: CUDA if there is a GPU.")] = Device.auto,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="auto: by a calibration of a few seconds, kept for the next time.")
    ] = PrecisionChoice.auto,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="By default by calibration, if the run is long.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; one unless said otherwise.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Sequences in memory at once; all of a step by default.")
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Less memory, more time: a layer's activations are computed twice.")
    ] = False,
    parallel: Annotated[
        ParallelChoice, typer.Option(help="Under torchrun: every process has the whole model (ddp), or a part (fsdp).")
    ] = ParallelChoice.ddp,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=1, metavar="S", help="Between checkpoints: what a killed process loses at most.")
    ] = 20.0,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Try everything that the run will need, and train nothing.")
    ] = False,
    template: Annotated[bool, typer.Option("--template", help="Print a file with every key explained.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train one run; stop it at any moment, and the same command continues.

    Its folder then holds what `scaling generate` and `scaling export` need. Exits with 3 if the run diverged, or if a
    check of --preflight failed.

    Examples: scaling train --template > mine.yaml && scaling train mine.yaml
              scaling train recommendation.yaml --corpus text/ --preflight
              torchrun --nproc-per-node 8 -m scaling.cli.main train mine.yaml --parallel fsdp
    """
    if template:
        from trainer.run_file import run_template

        typer.echo(run_template(), nl=False)
        return
    if spec is None:
        raise UserError("SPEC.yaml is missing: `scaling train --template > mine.yaml` writes one")

    from sweeps.workspace import Workspace, cache_folder
    from trainer.distributed.world import join_world
    from trainer.numerics_choice import NumericsWish
    from trainer.run_from_file import RunPlaces

    wish = NumericsWish(
        device=None if device is Device.auto else device.value,
        precision=None if precision is PrecisionChoice.auto else precision.value,
        compiled=compiled,
        threads=threads,
        micro_batch_sequences=micro_batch,
        recompute=recompute or None,
    )
    with join_world(wish.device_here) as world:
        if world.ranks > 1:
            wish = wish.model_copy(update={"parallel": parallel.value, "ranks": world.ranks})
        space = Workspace(workspace)
        places = RunPlaces(corpora=space.corpora, runs=space.trained, cache=cache_folder() / "runs", out=out)
        if preflight:
            _preflight(spec, corpus, places, wish, checkpoint_seconds, world, as_json=as_json)
        else:
            _train(spec, corpus, space, places, wish, checkpoint_seconds, world, as_json=as_json)


def _preflight(
    spec: Path,
    corpus: str | None,
    places: RunPlaces,
    wish: NumericsWish,
    checkpoint_seconds: float,
    world: World,
    *,
    as_json: bool,
) -> None:
    from scaling.cli.pages import preflight_page
    from scaling.cli.run_display import RunDisplay
    from trainer.preflight.run import preflight

    silent = world.rank > 0
    with RunDisplay(spec.stem, quiet=as_json or silent) as display:
        found = preflight(
            spec, corpus, places, wish, progress=display.step, checkpoint_seconds=checkpoint_seconds, world=world
        )
    if not silent:
        if as_json:
            print_json(found.model_dump(mode="json") | {"passed": found.passed})
        else:
            typer.echo(preflight_page(found))
    # Of several processes the first one's checks decide for all.
    if world.any(world.rank == 0 and not found.passed):
        raise typer.Exit(3)


def _train(
    spec: Path,
    corpus: str | None,
    space: Workspace,
    places: RunPlaces,
    wish: NumericsWish,
    checkpoint_seconds: float,
    world: World,
    *,
    as_json: bool,
) -> None:
    from scaling.cli.pages import run_page, scored_line
    from scaling.cli.run_display import RunDisplay
    from scaling.cli.sending import send
    from sweeps.final_run import FollowedRun
    from trainer.band_watch import BandWatch
    from trainer.run_from_file import train_file
    from trainer.tracker import NullTracker, Trackers

    silent = world.rank > 0
    with RunDisplay(spec.stem, quiet=as_json or silent) as display, StopSignals(handed_on=world.ranks > 1) as stop:
        made = None if silent else _as_recommended(spec, display.say)
        followed = None if silent else FollowedRun(space, made, display.say)
        watch = None if made is None or made.band is None else BandWatch(made.band, display.say)

        def starting(run: RunSpec, numerics: Numerics, folder: Path) -> None:
            if followed is not None:
                followed.starting(run.key, folder)
            stop.listen()
            display.starting(run, numerics, folder)

        folder, result = train_file(
            spec,
            corpus,
            places,
            wish,
            tracker=Trackers(display, *(each or NullTracker() for each in (followed, watch))),
            progress=display.step,
            starting=starting,
            should_stop=lambda: stop.received is not None or (followed is not None and followed.called_off),
            world=world,
            checkpoint_seconds=checkpoint_seconds,
        )
    scored = None if followed is None else followed.ended(result)
    model = None if scored is None else send(space, scored, quiet=as_json)
    if silent:
        pass
    elif as_json:
        beside = {
            "forecast": scored and scored.forecast.model_dump(mode="json"),
            "outcome": scored and scored.outcome.model_dump(mode="json"),
            "renewed_forecast": watch and watch.renewed and watch.renewed.model_dump(mode="json"),
            "alarms": watch.alarms if watch else 0,
            "model": model,
        }
        print_json({"folder": str(folder.path), **result.model_dump(mode="json"), **beside})
    elif result.status != "interrupted":
        typer.echo(run_page(folder.path, result))
        if scored is not None:
            typer.echo(scored_line(scored))
        if model is not None:
            typer.echo(f"model     {model} in MLflow")
    _leave(result, stop.received, silent=silent)


def _as_recommended(path: Path, say: Callable[[str], None]) -> Recommendation | None:
    """The recommendation in the file, if its run is still the one that was recommended."""
    from analysis.recommendation_yaml import read_recommendation

    made = read_recommendation(path)
    if made is None or made.run is None or made.run_key is None:
        return None
    if made.run.key != made.run_key:
        say("the run in the file is not the one that was recommended: its loss is held against no forecast")
        return None
    return made


def _leave(result: RunResult, number: int | None, *, silent: bool) -> None:
    if result.status == "interrupted":
        if not silent:
            typer.echo(f"scaling: stopped and saved at step {result.steps:,}; the same command continues", err=True)
        raise typer.Exit(128 + (number or signal.SIGINT))
    if result.status == "diverged":
        raise typer.Exit(3)


class StopSignals:
    """The signal that asks the run to end at its next step, while it trains; before that, signals act as always.

    A second one doesn't wait for the step; soon after the first it is the same one, if torchrun hands it on.
    """

    def __init__(self, *, handed_on: bool = False) -> None:
        self.received: int | None = None
        self._patience, self._at = HANDED_ON_SECONDS if handed_on else 0.0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        return self

    def listen(self) -> None:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            if time.monotonic() - self._at < self._patience:
                return
            raise KeyboardInterrupt
        self.received, self._at = number, time.monotonic()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
