"""`scaling posttrain` as a process: from a file to models, a page and MLflow; stopped and continued; mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.trainer.posttrain.base_models import write_base, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

LITTLE: dict[str, Any] = {
    "name": "little",
    "chat_template": "plain",
    "held_out": 0.2,
    "max_new_tokens": 12,
    "sft": {"learning_rate": 5e-3, "epochs": 1, "batch": 8},
    "pairs": {"prompts": 40, "noise": 0.2},
    "reward": {"learning_rate": 1e-3, "batch": 16},
    "best_of_n": {"answers": 4, "prompts": 6},
    "ppo": {"learning_rate": 1e-3, "steps": 3, "answers_per_step": 16, "minibatch_answers": 8, "kl_coefficient": 0.1},
    "compare": {"prompts": 12},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_base(folder / "base")
    write_corpus(folder / "corpus.txt")
    return folder


def _file(place: Path, **changes: Any) -> Path:
    asked = LITTLE | {"base": str(place / "base")} | changes
    asked["task"] = {"kind": "sentences", "source": str(place / "corpus.txt"), "count": 200}
    path = place / f"{asked['name']}.yaml"
    path.write_text(yaml.safe_dump(asked))
    return path


def _start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scaling.cli.main", "posttrain", *arguments, "--workspace", str(place / "work")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=place,
    )  # fmt: skip


def _run(place: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    process = _start(place, *arguments)
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, err
    return out, err


def test_from_a_file_to_models_a_page_and_mlflow(place: Path) -> None:
    file = _file(place)
    out, err = _run(place, str(file), "--json")
    told = json.loads(out)
    assert [stage["stage"] for stage in told["stages"]] == ["sft", "pairs", "reward", "best_of_n", "ppo", "compare"]
    assert "it/s" not in err and "Warning" not in err, "nothing of the libraries' own"
    page = (place / told["report"]).read_text(encoding="utf-8")
    assert "ppo" in page and "best-of-n" in page and "gold score" in page

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'work' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("posttrain/little")
    runs = client.search_runs([experiment.experiment_id])
    by_stage = {run.data.tags.get("stage", "pipeline"): run for run in runs}
    assert set(by_stage) == {"pipeline", "sft", "pairs", "reward", "best_of_n", "ppo", "compare"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = by_stage["pipeline"].info.run_id
    assert by_stage["ppo"].data.tags["mlflow.parentRunId"] == parent
    assert [point.step for point in client.get_metric_history(by_stage["ppo"].info.run_id, "kl")] == [1, 2, 3]
    compared = told["stages"][-1]["metrics"]
    assert by_stage["pipeline"].data.metrics["gold_gain/ppo"] == pytest.approx(compared["ppo/gold_gain"])

    # Again: nothing is trained, and nothing is sent twice.
    out, _ = _run(place, str(file))
    assert "best of 4 on 6 prompts" in out and "held-out loss" in out
    assert len(client.search_runs([experiment.experiment_id])) == len(runs)


def test_a_stage_killed_in_the_middle_ends_as_if_it_had_not_been(place: Path) -> None:
    def ppo(name: str, **changes: Any) -> Path:
        settings = LITTLE["ppo"] | {"steps": 12}
        return _file(place, name=name, sft=None, pairs=None, reward=None, best_of_n=None, ppo=settings, **changes)

    process = _start(place, str(ppo("parts")), "--only", "ppo")
    curve = _appears(place / "work" / "posttrain", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "the same command continues" in err
    process = _start(place, str(ppo("parts")), "--only", "ppo")
    lines = len(curve.read_text().splitlines())
    while process.poll() is None and len(curve.read_text().splitlines()) < lines + 2:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    _run(place, str(ppo("parts")), "--only", "ppo")
    whole = place / "whole"
    write_base(whole / "base")
    out = subprocess.run(
        [sys.executable, "-m", "scaling.cli.main", "posttrain", str(ppo("whole")), "--only", "ppo", "--json",
         "--workspace", str(whole / "work")],
        capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280,
    )  # fmt: skip
    folder = Path(json.loads(out.stdout)["stages"][0]["folder"])
    assert (folder / "model" / "model.safetensors").read_bytes() == (
        curve.parent / "model" / "model.safetensors"
    ).read_bytes()
    assert (folder / "curve.jsonl").read_text() == curve.read_text()


def _appears(root: Path, process: subprocess.Popen[str]) -> Path:
    """The curve of the stage that is being trained, once it has two steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for curve in root.glob("ppo-*/curve.jsonl"):
            if not (curve.parent / "result.json").exists() and len(curve.read_text().splitlines()) >= 2:
                return curve
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError("no step within two minutes")


def test_mistakes_are_one_line(place: Path) -> None:
    for arguments, said in (
        ((), "PIPELINE.yaml is missing"),
        ((str(place / "no.yaml"),), "does not exist"),
        ((str(_file(place)), "--only", "dpo"), "--only dpo is no stage of"),
        ((str(_file(place, name="nobase", base="nothing")),), "RUN 'nothing' is no run's folder"),
    ):
        out, err = _run(place, *arguments, code=2)
        assert out == "" and said in err and "Traceback" not in err
