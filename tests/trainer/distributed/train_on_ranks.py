"""What one process of ``torchrun`` does in these tests: the jobs of a JSON file, one after another.

Each is a call of ``train``; what it gave is written to OUT/NAME.RANK.json after it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.distributed.world import World, join_world
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.tracker import RecordingTracker

RESTARTS = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def do(job: dict[str, Any], corpus: Corpus, out: Path, world: World) -> None:
    tracker, steps = RecordingTracker(), 0

    def should_stop() -> bool:
        """Asked once a step; a job may have a rank killed there, or stopped by its signal alone."""
        nonlocal steps
        steps += 1
        if job.get("kill", {}).get(RESTARTS) == [world.rank, steps]:
            os.kill(os.getpid(), signal.SIGKILL)
        return bool(job.get("stop") == [world.rank, steps])

    given: dict[str, Any] = {}
    try:
        result = train(
            RunSpec.model_validate(job["spec"]),
            corpus,
            Numerics(ranks=world.ranks, **job["numerics"]),
            directory=Path(job["folder"]),
            tracker=tracker,
            should_stop=should_stop,
            checkpoint_seconds=job.get("checkpoint_seconds", 1e9),
            trunk=Path(job["trunk"]) if "trunk" in job else None,
            branches=job.get("branches", ()),
            world=world,
        )
        given["result"] = result.model_dump(mode="json")
    except UserError as error:
        given["error"] = str(error)
    given["points"] = [[point.step, dict(point.values)] for point in tracker.points]
    given["notes"] = tracker.notes
    (out / f"{job['name']}.{world.rank}.json").write_text(json.dumps(given), encoding="utf-8")


def main(jobs: Path, corpus: Path, out: Path) -> None:
    with join_world("cpu") as world:
        for job in json.loads(jobs.read_text(encoding="utf-8")):
            if not (out / f"{job['name']}.{world.rank}.json").exists():
                do(job, Corpus(corpus), out, world)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
