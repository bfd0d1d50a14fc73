"""Listing a study in a ledger of 100,000 runs: the function and the command, against a second each.

    python benchmarks/ledger_listing.py [--runs 100000] [--out benchmarks/results/ledger.json]

Half of the runs are one study's, the other half a thousand studies'; a third has finished with a result of a real
run's size.
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
from typing import Any

import sqlalchemy as sa

from scaling import architectures
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.schema import MEMBERS, RUNS
from trainer.whole_file import write_whole

REPEATS = 5
RESULT = {"status": "finished", "loss_nats": 3.2, "domains": {f"domain {i}": {"loss_nats": 3.0} for i in range(8)},
          "system": dict.fromkeys("abcdefghijklmnop", "x" * 40)}  # fmt: skip


def fill(ledger: Ledger, runs: int) -> None:
    """Rows as ``Ledger.add`` writes them, in one transaction."""
    shape = architectures.get("llama").shape_for(1e5, vocabulary=1024, context=128)
    spec = RunSpec(
        shape=shape, tokens=1_000_448, global_batch_tokens=512, optimizer=OptimizerSpec(learning_rate=1e-3), seed=0,
        schedule=ScheduleSpec(warmup_tokens=5120), data_key="d" * 64, tokenizer_key="t" * 64, held_out_tokens=65_536,
    ).model_dump(mode="json")  # fmt: skip
    rows: list[dict[str, Any]] = []
    for at in range(runs):
        done = at % 3 == 0
        rows.append(
            {"key": f"{at:064x}", "spec": spec | {"seed": at}, "flops": 1e12 + at, "own_flops": 1e12 + at,
             "branch_step": 0, "state": "finished" if done else "planned", "step": 1954 if done else 0,
             "loss": 3.2 if done else None, "result": RESULT if done else None}
        )  # fmt: skip
    members = [
        {"study": "large" if at % 2 else f"small-{at % 1000}", "run_key": row["key"], "stage": "sweep", "label": "run"}
        for at, row in enumerate(rows)
    ]
    with ledger.transaction() as db:
        db.execute(sa.insert(RUNS), rows)
        db.execute(sa.insert(MEMBERS), members)


def seconds(what: Any) -> dict[str, Any]:
    """CPU and wall seconds of the quickest of a few calls."""
    best: list[tuple[float, float]] = []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        what()
        best.append((time.perf_counter() - wall, time.process_time() - cpu))
    return {"wall": min(best)[0], "cpu": min(cpu for _, cpu in best)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ledger.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.db")
        fill(ledger, arguments.runs)
        with ledger.transaction() as db:
            db.execute(sa.insert(MEMBERS).from_select(
                ["study", "run_key", "stage", "label"],
                sa.select(sa.literal("all"), RUNS.c.key, sa.literal("sweep"), sa.literal("run"))))  # fmt: skip
        found = {
            "runs": arguments.runs,
            "megabytes": sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6,
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "list all runs": seconds(lambda: ledger.runs("all", light=True)),
            "list a study of half of them": seconds(lambda: ledger.runs("large", light=True)),
            "list a study of fifty of them": seconds(lambda: ledger.runs("small-2")),
            "the same as all runs, with specifications and results": seconds(lambda: ledger.runs("all")),
        }
        import_seconds = seconds(
            lambda: subprocess.run([sys.executable, "-c", "import sweeps.ledger.ledger"], check=True)
        )
        found["start of Python with the ledger's imports"] = {"wall": import_seconds["wall"]}
        ledger.close()
    print(json.dumps(found, indent=2))
    write_whole(arguments.out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
