"""Where a run's time goes: training steps, data, logging, evaluations, checkpoints.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/loop_overhead.py [--steps 2000] [--params 1e5 1e6]

Real runs on the embedded corpus (batch of 512 tokens, context 128, vocabulary 1,024: the quickstart's), as a worker of
a sweep trains them: with a ledger on disk, twelve evaluations and a checkpoint every 20 seconds, on one thread. Each
part is timed from outside, without what it calls of other parts: by the wall, where waiting for the disk counts and so
does waiting for a core that others use, and by the thread's CPU time, where neither does. On a CPU a call returns when
its work is done. "between" is the loop itself.

Reference: logging under 1% of the time, and data never waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from scaling import architectures
from scaling.run_spec import OptimizerSpec, RunSpec, ScheduleSpec
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.ledger.tracker import LedgerTracker
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.evaluate.held_out import HeldOutSet
from trainer.loop.calibrate import calibrate
from trainer.loop.meter import RunMeter, StepClock
from trainer.loop.numerics import Numerics
from trainer.loop.run import Run
from trainer.loop.state import TrainingState
from trainer.loop.step import TrainingStep
from trainer.loop.train import train
from trainer.system_facts import system_facts

BATCH_TOKENS, CONTEXT, VOCABULARY = 512, 128, 1024
PARTS: dict[str, list[tuple[type, str]]] = {
    "steps": [(TrainingStep, "accumulate"), (TrainingStep, "update")],
    "data": [(Run, "next_batch")],
    "logging": [
        *((LedgerTracker, name) for name in ("metrics", "progress", "note", "flush")),
        *((Run, name) for name in ("_report", "_metrics", "_show_progress")),
        *((RunMeter, name) for name in ("stop", "lap", "totals")),
        *((StepClock, name) for name in ("start", "stop", "count_step")),
        (TrainingState, "advance"),
    ],
    "evaluation": [(Run, "_evaluate"), (HeldOutSet, "loss")],
    "checkpoints": [(Run, "save")],
    "between": [(Run, "train")],
}


class Stopwatch:
    """Seconds of each part, without those of parts that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.cpu_seconds: dict[str, float] = defaultdict(float)
        self._inside: list[str] = []
        self._since, self._cpu_since = time.perf_counter(), time.thread_time()

    def _switch(self) -> None:
        now, cpu_now = time.perf_counter(), time.thread_time()
        if self._inside:
            self.seconds[self._inside[-1]] += now - self._since
            self.cpu_seconds[self._inside[-1]] += cpu_now - self._cpu_since
        self._since, self._cpu_since = now, cpu_now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._switch()
            self._inside.append(part)
            try:
                return function(*arguments, **named)
            finally:
                self._switch()
                self._inside.pop()

        return call


def watch_all() -> tuple[Stopwatch, Callable[[], None]]:
    """A stopwatch on every part, and what takes it off again."""
    watch = Stopwatch()
    originals = [(owner, name, getattr(owner, name)) for places in PARTS.values() for owner, name in places]
    for part, places in PARTS.items():
        for owner, name in places:
            setattr(owner, name, watch.timed(part, getattr(owner, name)))

    def undo() -> None:
        for owner, name, original in originals:
            setattr(owner, name, original)

    return watch, undo


def run_spec(params: float, steps: int, corpus: Corpus) -> tuple[RunSpec, Numerics, float | None]:
    """The run, the numerics that a calibration chooses for it, and the peak it found."""
    shape = architectures.get("llama").shape_for(params, vocabulary=VOCABULARY, context=CONTEXT)
    calibration = calibrate([shape], BATCH_TOKENS // CONTEXT)
    numerics = calibration.choose()
    spec = RunSpec(
        shape=shape,
        tokens=steps * BATCH_TOKENS,
        global_batch_tokens=BATCH_TOKENS,
        optimizer=OptimizerSpec(learning_rate=1e-2),
        schedule=ScheduleSpec(warmup_tokens=steps // 10 * BATCH_TOKENS, cooldown_tokens=steps // 5 * BATCH_TOKENS),
        data_key=corpus.manifest.data_key,
        tokenizer_key=corpus.manifest.tokenizer_key,
        held_out_tokens=65_536,
    )
    return spec, numerics, calibration.peak_flops_per_second(numerics)


def measure(params: float, steps: int, corpus: Corpus, folder: Path) -> dict[str, Any]:
    spec, numerics, peak = run_spec(params, steps, corpus)
    ledger, owner = Ledger(f"sqlite:///{folder / 'ledger.db'}"), Owner.me()
    ledger.add("benchmark", [PlannedRun(spec=spec, stage="sweep", label="run")])
    leased = ledger.lease("benchmark", "sweep", owner)
    assert leased is not None
    watch, undo = watch_all()
    try:
        result = train(
            spec, corpus, numerics, directory=folder / spec.key, tracker=LedgerTracker(ledger, spec.key, owner),
            should_stop=lambda: False, peak_flops_per_second=peak,
        )  # fmt: skip
    finally:
        undo()
    ledger.close()
    whole, cpu_whole = sum(watch.seconds.values()), sum(watch.cpu_seconds.values())
    return {
        "params": architectures.get("llama").count_parameters(spec.shape).total,
        "width": spec.shape.width,
        "layers": spec.shape.layers,
        "steps": spec.steps,
        "numerics": numerics.label,
        "tokens_per_second": result.tokens_per_second,
        "mfu": result.mfu,
        "peak_memory_bytes": result.peak_memory_bytes,
        "seconds": whole,
        "cpu_seconds": cpu_whole,
        "share": {part: watch.seconds[part] / whole for part in PARTS},
        "cpu_share": {part: watch.cpu_seconds[part] / cpu_whole for part in PARTS},
        "cpu_microseconds_a_step": {part: watch.cpu_seconds[part] / spec.steps * 1e6 for part in PARTS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--params", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = prepare("starter", vocabulary=VOCABULARY, held_out=0.05, cut_bytes=4096, into=folder / "corpora")
        rows = []
        for params in arguments.params:
            (folder / f"{params:g}").mkdir()
            rows.append(measure(params, arguments.steps, corpus, folder / f"{params:g}"))
            row = rows[-1]
            print(f"{row['params']:,} parameters, {row['steps']:,} steps, {row['numerics']}, {row['seconds']:.0f} s")
            print("               wall      CPU   CPU, us a step")
            for part in PARTS:
                wall, cpu, each = (row[name][part] for name in ("share", "cpu_share", "cpu_microseconds_a_step"))
                print(f"  {part:12} {wall:7.2%}  {cpu:7.2%}  {each:10.1f}")
    result = {"system": system_facts().model_dump(mode="json"), "load_average": os.getloadavg()[0], "runs": rows}
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
