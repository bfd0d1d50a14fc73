"""What the engine costs a run: a thousand runs of two steps, through ledger, executor and workers.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/trivial_runs.py [--runs 1000] [--workers 2]

The embedded corpus, the quickstart's smallest shape, seeds 0, 1, ...: each run is leased, trained, measured, saved and
finished as in a study. Reference: the same runs by ``trainer.loop.train`` one after another in one process, with a
tracker that keeps everything in memory. The engine's overhead is what a run takes a worker (wall clock x workers /
runs, once all workers have started) over what it takes there; start-up of workers and engine is told apart.

Goal: under 50 ms a run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from scaling import architectures
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from sweeps.conduct import Conductor
from sweeps.engine import run_stage
from sweeps.executors.command import WorkerCommand
from sweeps.executors.local import LocalExecutor
from sweeps.ledger.ledger import PlannedRun, RunRow
from sweeps.progress import NullProgress
from sweeps.study import Study
from sweeps.workspace import Workspace
from trainer.data.shards import Corpus
from trainer.loop.train import train
from trainer.system_facts import system_facts
from trainer.tracker import RecordingTracker

OUT = Path(__file__).parent / "results" / "trivial_runs.json"
STUDY = {
    "name": "trivial",
    "question": {"flops": 1e15},
    "corpus": {"source": "starter", "vocabulary": 1024},
    "budget": {"flops": 1e13},
    "design": {"kind": "isoflop"},
    "hyperparameters": {"learning_rate": 0.01},
    "track": {"mlflow": None},
}


def specs(corpus: Corpus, count: int) -> list[RunSpec]:
    shape = architectures.get("llama").shape_for(3e4, vocabulary=1024, context=128)
    return [
        RunSpec(
            shape=shape, tokens=1024, global_batch_tokens=512, seed=seed, optimizer=OptimizerSpec(learning_rate=1e-2),
            schedule=ScheduleSpec(warmup_tokens=0, cooldown_tokens=512), held_out_tokens=1024,
            data_key=corpus.manifest.data_key, tokenizer_key=corpus.manifest.tokenizer_key,
        )
        for seed in range(count)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        conductor = Conductor(Study.model_validate(STUDY), workspace, NullProgress())
        plan = conductor.plan()
        corpus = Corpus(workspace.corpora / plan.corpus.folder)
        wanted = specs(corpus, arguments.runs)

        alone = min(200, arguments.runs)
        started = time.perf_counter()
        for spec in wanted[:alone]:
            train(
                spec, corpus, plan.numerics, directory=Path(folder) / "alone" / spec.key[:16],
                tracker=RecordingTracker(), should_stop=lambda: False,
            )  # fmt: skip
        reference = (time.perf_counter() - started) / alone

        conductor.ledger.add("trivial", [PlannedRun(spec=spec, stage="sweep", label="trivial") for spec in wanted])
        begun = time.perf_counter()
        first: list[float] = []

        def report(rows: list[RunRow]) -> None:
            if not first and sum(row.state == "finished" for row in rows) >= arguments.workers:
                first.extend((time.perf_counter(), sum(row.state == "finished" for row in rows)))

        executor = LocalExecutor(
            WorkerCommand(workspace=str(workspace.root), study="trivial", threads=plan.numerics.threads)
        )
        run_stage(conductor.ledger, executor, "trivial", "sweep", workers=arguments.workers, report=report)
        ended = time.perf_counter()
        rows = conductor.ledger.runs("trivial", "sweep")
        assert all(row.state == "finished" for row in rows), "a run was not finished"
    a_run = (ended - first[0]) * arguments.workers / (arguments.runs - first[1])
    facts = {
        "runs": arguments.runs,
        "workers": arguments.workers,
        "start_up_seconds": first[0] - begun,
        "wall_seconds": ended - begun,
        "ms_a_run": 1e3 * a_run,
        "ms_a_run_without_engine": 1e3 * reference,
        "overhead_ms_a_run": 1e3 * (a_run - reference),
        "numerics": plan.numerics.label,
        "system": system_facts().model_dump(mode="json"),
    }
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in facts.items() if key != "system"}, indent=1))


if __name__ == "__main__":
    main()
