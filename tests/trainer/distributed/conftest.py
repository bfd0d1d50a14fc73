"""Launches of ``torchrun`` on this machine: ten seconds and more each, so that one does many jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus

Job = dict[str, Any]
Given = dict[str, Any]
Launch = Callable[..., dict[str, list[Given]]]

SCRIPT = Path(__file__).with_name("train_on_ranks.py")


def job(
    name: str, spec: RunSpec, folder: Path, parallel: str, *, numerics: dict[str, Any] | None = None, **more: Any
) -> Job:
    """See ``train_on_ranks.py``, which reads it."""
    return {
        "name": name,
        "spec": spec.model_dump(mode="json"),
        "numerics": {"parallel": parallel, **(numerics or {})},
        "folder": str(folder),
        **more,
    }


def curve(given: Given, name: str = "train_loss") -> dict[int, float]:
    return {step: values[name] for step, values in given["points"] if name in values}


@pytest.fixture(scope="session")
def launch(tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """``launch(jobs, ranks=2, restarts=0)``: what each job gave, by rank."""

    def run(jobs: Sequence[Job], ranks: int = 2, restarts: int = 0) -> dict[str, list[Given]]:
        out = tmp_path_factory.mktemp("launch")
        file = out / "jobs"
        file.write_text(json.dumps(jobs), encoding="utf-8")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
        paths = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [*torchrun, "--max-restarts", str(restarts), str(SCRIPT), str(file), str(tiny_corpus.directory), str(out)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=290,
        )
        assert done.returncode == 0, done.stderr[:9000]
        return {
            one["name"]: [json.loads((out / f"{one['name']}.{rank}.json").read_text()) for rank in range(ranks)]
            for one in jobs
        }

    return run
