"""The wall clock of a whole sweep against a shell loop and against Ray Tune, for the same measured points.

    python benchmarks/sweep_throughput.py [--flops 3e12 | --quickstart] [--only ours,loop,...]

Needs ``pip install "ray[tune]"`` and a machine on which nothing else runs. The embedded corpus, prepared beforehand for
all; Llamas of four sizes on four numbers of tokens each (the quickstart's context, batch and vocabulary): the points
that are measured are the same, whoever trains them. By the clock, from the start of the command to the last loss.

As people run them:

- loop: one process a point, one after another, threads as torch sets them, eager fp32: a shell loop over a training
  script.
- tune: Ray Tune, a trial a point and one core a trial, the same training function in eager fp32, each evaluation
  reported; Ray's start included.
- ours: the engine with one worker a core, the numerics that calibration chose, branches from trunks.

Made equal (no trunks, the same numerics, one thread a run, caches warm): ``ours-alone`` and ``tune-equal``.

What each thing gains: ``ours-alone`` has no trunks, ``ours-eager`` no kernels and no bf16 either. The share of the
workers' time that is training steps is that of ``ours``, their start-up included.

``--quickstart`` takes the runs of ``examples/quickstart.yaml`` in their place: iso-FLOP lines, which have no trunks, so
that ``ours-alone`` is ``ours``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling.hyperparameters import fixed_rate
from scaling.run_spec import RunSpec
from sweeps.conduct import Conductor
from sweeps.engine import run_stage
from sweeps.executors.command import WorkerCommand
from sweeps.executors.local import LocalExecutor, usable_cores
from sweeps.ledger.ledger import PlannedRun, RunRow
from sweeps.planning.plan import Plan
from sweeps.progress import NullProgress
from sweeps.study import Study, load_study
from sweeps.workspace import Workspace
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.system_facts import system_facts
from trainer.tracker import NullTracker

OUT = Path(__file__).parent / "results" / "sweep_throughput.json"
STUDY = {
    "name": "throughput",
    "question": {"flops": 1e15},
    "design": {"kind": "curves", "sizes": 4, "size_step": 1.6, "points": 4, "tokens_per_param": [2, 16]},
    "hyperparameters": {"learning_rate": 0.01},
    "track": {"mlflow": None},
}
QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart.yaml"


def study_of(arguments: argparse.Namespace) -> Study:
    """One learning rate for all, and no MLflow, whichever study it is."""
    study = Study.model_validate(STUDY | {"budget": {"flops": arguments.flops}})
    if not arguments.quickstart:
        return study
    quickstart = load_study(QUICKSTART)
    return quickstart.model_copy(update={"hyperparameters": study.hyperparameters, "track": study.track})


def one_run(spec_file: Path, corpus: Path, folder: Path) -> None:
    """A training script as a shell loop calls it."""
    spec = RunSpec.model_validate_json(spec_file.read_bytes())
    result = train(
        spec, Corpus(corpus), eager(os.cpu_count() or 1), directory=folder, tracker=NullTracker(),
        should_stop=lambda: False,
    )  # fmt: skip
    print(result.loss_nats)


def eager(threads: int) -> Numerics:
    return Numerics(precision="fp32", compiled=False, kernels=False, threads=threads)


def shell_loop(specs: list[RunSpec], corpus: Path, folder: Path) -> dict[str, float]:
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    losses = {}
    for spec in specs:
        file = folder / f"{spec.key[:16]}.json"
        file.write_text(spec.model_dump_json())
        command = [sys.executable, __file__, "--one-run", str(file), str(corpus), str(folder / spec.key[:16])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        losses[spec.key] = float(done.stdout.split()[-1])
    return losses


def ray_tune(specs: list[RunSpec], corpus: Path, folder: Path, numerics: Numerics) -> dict[str, float]:
    import ray
    from ray import tune

    class Reporting(NullTracker):
        def metrics(self, step: int, tokens: int, flops: float, values: Any) -> None:
            if "held_out_loss" in values:
                tune.report({"step": step, "tokens": tokens, **values})

    def trial(config: dict[str, Any]) -> None:
        spec = RunSpec.model_validate_json(config["spec"])
        result = train(
            spec, Corpus(corpus), numerics, directory=folder / spec.key[:16], tracker=Reporting(),
            should_stop=lambda: False,
        )  # fmt: skip
        tune.report({"loss_nats": result.loss_nats, "run_key": spec.key})

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=usable_cores(), include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        # The longest first, as our engine does.
        param_space={"spec": tune.grid_search([spec.model_dump_json() for spec in specs])},
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    )
    results = tuner.fit()
    losses = {result.metrics["run_key"]: result.metrics["loss_nats"] for result in results}
    ray.shutdown()
    return losses


def ours(
    study: Study, plan: Plan, runs: list[PlannedRun], corpora: Path, folder: Path, *, trunks: bool, numerics: Numerics
) -> list[RunRow]:
    """The engine in a workspace of its own; without ``trunks`` each run starts at its beginning."""
    workspace = Workspace(folder)
    shutil.copytree(corpora, workspace.corpora)
    conductor = Conductor(study, workspace, NullProgress())
    frozen = plan.model_copy(update={"numerics": numerics})
    conductor.ledger.freeze(study.name, {}, frozen.model_dump(mode="json"))
    alone = [run.model_copy(update={"carrier": None}) for run in runs]
    conductor.ledger.add(study.name, runs if trunks else alone)
    executor = LocalExecutor(WorkerCommand(workspace=str(workspace.root), study=study.name, threads=numerics.threads))
    run_stage(conductor.ledger, executor, study.name, "sweep", workers=usable_cores(), report=lambda _rows: None)
    return conductor.ledger.runs(study.name, "sweep")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flops", type=float, default=3e12)
    parser.add_argument("--quickstart", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--one-run", nargs=3, type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.one_run:
        one_run(*arguments.one_run)
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        study = study_of(arguments)
        prepared = Workspace(root / "prepared")
        conductor = Conductor(study, prepared, NullProgress())
        plan = conductor.plan()
        runs = conductor.sweep_runs(plan, fixed_rate(0.01))
        specs = [run.spec for run in runs]
        corpus = prepared.corpora / plan.corpus.folder
        longest_first = sorted(specs, key=lambda spec: -spec.tokens * spec.shape.width)
        one_thread = eager(1)

        def engine(name: str, trunks: bool, numerics: Numerics) -> Callable[[], tuple[dict[str, float], Any]]:
            def contender() -> tuple[dict[str, float], Any]:
                rows = ours(study, plan, runs, prepared.corpora, root / name, trunks=trunks, numerics=numerics)
                return {row.key: row.loss for row in rows}, rows

            return contender

        def other(make: Callable[[Path], dict[str, float]], name: str) -> Callable[[], tuple[dict[str, float], Any]]:
            def contender() -> tuple[dict[str, float], Any]:
                (root / name).mkdir()
                return make(root / name), None

            return contender

        contenders = {
            "ours": engine("ours", True, plan.numerics),
            "ours-alone": engine("alone", False, plan.numerics),
            "tune-equal": other(lambda f: ray_tune(longest_first, corpus, f, plan.numerics), "tune-equal"),
            "ours-eager": engine("eager", False, one_thread),
            "tune": other(lambda f: ray_tune(longest_first, corpus, f, one_thread), "tune"),
            "loop": other(lambda f: shell_loop(specs, corpus, f), "loop"),
        }
        if not any(run.carrier for run in runs):
            del contenders["ours-alone"]
        chosen = [one for one in contenders if not arguments.only or one in arguments.only.split(",")]
        seconds: dict[str, float] = {}
        losses: dict[str, dict[str, float]] = {}
        share = None
        for contender in chosen:
            print(f"{contender} ...", end=" ", flush=True)
            started = time.perf_counter()
            losses[contender], rows = contenders[contender]()
            seconds[contender] = time.perf_counter() - started
            print(f"{seconds[contender]:.1f} s", flush=True)
            if contender == "ours":
                stepping = sum(
                    (row.result["tokens"] - row.result["first_step"] * row.spec.global_batch_tokens)
                    / row.result["tokens_per_second"]
                    for row in rows
                )
                share = stepping / seconds[contender] / usable_cores()
        reference = losses[chosen[0]]
        furthest = {
            name: max(abs(each[key] / reference[key] - 1) for key in reference) for name, each in losses.items()
        }
        facts = {
            "points": len(specs),
            "cores": usable_cores(),
            "numerics": plan.numerics.label,
            "flops_alone": sum(p.point.flops for p in plan.sweep),
            "flops_with_trunks": plan.sweep_flops,
            "seconds": seconds,
            "times_ours": {name: each / seconds[chosen[0]] for name, each in seconds.items()},
            "share_of_worker_time_in_steps": share,
            "largest_difference_in_loss": furthest,
            "system": system_facts().model_dump(mode="json"),
        }
        equal = "ours-alone" if "ours-alone" in contenders else "ours"
        if {"tune-equal", equal} <= seconds.keys():
            facts["tune_over_ours_equal"] = seconds["tune-equal"] / seconds[equal]
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in facts.items() if key != "system"}, indent=1))


if __name__ == "__main__":
    main()
