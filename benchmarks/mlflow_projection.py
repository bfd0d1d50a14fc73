"""What the projection to MLflow costs: 200 runs of 200 points from four processes into one SQLite store.

    python benchmarks/mlflow_projection.py --plan PLAN.json [--runs 200] [--processes 4]

Each process is a study's with its share of the runs. CPU time is the projecting thread's, for in a study only the
conducting process pays it; the share of training time follows from a run's length.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

from scaling import architectures
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.planning.plan import Plan
from sweeps.tracking.projection import MlflowProjection
from trainer.whole_file import write_whole

POINTS = 200


def fill(ledger: Ledger, study: str, runs: int, seed: int) -> None:
    shape = architectures.get("llama").shape_for(1e5, vocabulary=1024, context=128)
    spec = RunSpec(
        shape=shape, tokens=512 * POINTS, global_batch_tokens=512, optimizer=OptimizerSpec(learning_rate=1e-3),
        schedule=ScheduleSpec(warmup_tokens=5120), data_key="d", tokenizer_key="t", held_out_tokens=512,
    )  # fmt: skip
    specs = [spec.model_copy(update={"seed": seed + at}) for at in range(runs)]
    ledger.add(study, [PlannedRun(spec=RunSpec.model_validate(s.model_dump(mode="json")), stage="sweep",
                                  label=f"run {s.seed}") for s in specs])  # fmt: skip
    me = Owner.me()
    while leased := ledger.lease(study, "sweep", me):
        ledger.add_points(
            leased.key,
            [{"step": k, "tokens": 512 * k, "flops": 1e9 * k, "name": "train_loss", "value": 5.0 - k / 100}
             for k in range(1, POINTS + 1)],
        )  # fmt: skip
        ledger.finish(leased.key, me, "finished", {"status": "finished", "steps": POINTS, "loss_nats": 3.0})


def project(folder: Path, plan_file: Path, number: int, at: float) -> None:
    """One process's share; prints its seconds."""
    plan = Plan.model_validate_json(plan_file.read_text(encoding="utf-8"))
    study = f"study-{number}"
    time.sleep(max(0.0, at - time.time()))
    wall, cpu = time.perf_counter(), time.thread_time()
    projection = MlflowProjection(f"sqlite:///{folder}/{study}.db", f"sqlite:///{folder}/mlflow.db", None, study, plan)
    opened = time.thread_time() - cpu
    projection.sync()
    projection.end("FINISHED")
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.thread_time() - cpu, "cpu_opening": opened}
    print(json.dumps(seconds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=Path, required=True, help="a study's plan.json, for its parameters")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mlflow_projection.json")
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "NUMBER", "AT"))
    arguments = parser.parse_args()
    if arguments.child:
        folder, number, at = arguments.child
        project(Path(folder), arguments.plan, int(number), float(at))
        return
    each = arguments.runs // arguments.processes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(arguments.processes):
            ledger = Ledger(f"sqlite:///{folder}/study-{number}.db")
            fill(ledger, f"study-{number}", each, seed=1000 * number)
            ledger.close()
        at = time.time() + 20
        children = [
            subprocess.Popen(
                [sys.executable, __file__, "--plan", str(arguments.plan), "--child", name, str(number), str(at)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(arguments.processes)
        ]
        outputs = [child.communicate() for child in children]
        failed = [error for child, (_, error) in zip(children, outputs, strict=True) if child.returncode]
        assert not failed, failed[0]
        seconds = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
        client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
        points = runs = 0
        for experiment in client.search_experiments(filter_string="name LIKE 'scaling/%'"):
            for run in client.search_runs([experiment.experiment_id], max_results=1000):
                if "scaling.run_key" in run.data.tags:
                    runs += 1
                    points += len(client.get_metric_history(run.info.run_id, "train_loss"))
    cpu_a_run = sum(s["cpu"] - s["cpu_opening"] for s in seconds) / runs
    found = {
        "runs": runs,
        "points": points,
        "processes": arguments.processes,
        "errors": 0,
        "wall_seconds": max(s["wall"] for s in seconds),
        "cpu_seconds_a_run": cpu_a_run,
        "cpu_seconds_to_open_the_store": max(s["cpu_opening"] for s in seconds),
        "shortest_run_in_seconds_of_which_it_is_under_1_percent": 100 * cpu_a_run,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    assert (runs, points) == (each * arguments.processes, each * arguments.processes * POINTS)
    print(json.dumps(found, indent=2))
    write_whole(arguments.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
