"""The last mile by its commands: a study, its recommendation as a file, the file to a scored run, stopped midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ..sweeps.conftest import write_text
from .conftest import scaling

PLAIN = ("--device", "cpu", "--precision", "fp32", "--no-compile")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of seconds, ``tiny.yaml``, in the workspace ``ws``."""
    folder = tmp_path_factory.mktemp("studied")
    study = {
        "name": "tiny",
        "question": {"flops": 3e11},
        "corpus": {"source": str(write_text(folder / "text")), "vocabulary": 300, "held_out": 0.2},
        "model": {"context": 32},
        "budget": {"flops": 5e10},
        "design": {
            "kind": "isoflop", "budgets": 3, "ratio": 1.6, "sizes": 4, "size_step": 1.5, "tokens_per_param": 4,
            "replicates": 1,
        },
        "hyperparameters": {"learning_rate": 0.01, "global_batch_tokens": 128},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "scaling.cli.main", "run", "tiny.yaml", "-w", "ws"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


def report(folder: Path) -> str:
    """What `scaling report` writes."""
    done = scaling("report", "tiny.yaml", "-w", "ws", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return Path(folder, json.loads(done.stdout)["report"]).read_text()


@pytest.mark.slow
def test_a_recommendation_is_launched_by_two_processes_stopped_and_ended_by_one_and_scored(studied: Path) -> None:
    made = scaling(
        "recommend", "tiny.yaml", "-w", "ws", "--flops", "3e11", "--out", "large.yaml", "--register", cwd=studied
    )
    assert made.returncode == 0, made.stderr
    assert "registered the forecast" in made.stderr
    assert made.stdout.count("wrote large.") == 4, "and three rungs"
    largest = json.loads((studied / "ws/studies/tiny/fit.json").read_text())["fitted_range"]["flops"][1]
    assert 3e11 / largest >= 30

    assert "it has not ended" in report(studied)

    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "-m", "scaling.cli.main"]
    command = [*torchrun, "train", "large.yaml", "-w", "ws", *PLAIN]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    with subprocess.Popen(
        command, cwd=studied, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "step " in line:
                break
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGTERM)
        said += process.stderr.read()
    assert list((studied / "ws/trained").glob("large-*/step-*")), said
    held = json.loads(scaling("status", "tiny.yaml", "-w", "ws", "--json", cwd=studied).stdout)
    assert [run["state"] for run in held["runs"] if run["stage"] == "final"] in (["planned"], ["running"])

    ended = scaling("train", "large.yaml", "-w", "ws", *PLAIN, "--json", cwd=studied)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["status"] == "finished" and result["resumed"] >= 1
    assert result["outcome"]["loss"] == result["loss_nats"]
    assert result["renewed_forecast"]["low"] < result["renewed_forecast"]["high"]
    listed = json.loads(scaling("forecasts", "tiny", "-w", "ws", "--json", cwd=studied).stdout)
    large = next(each for each in listed["forecasts"] if each["run_keys"] == [result["run_key"]])
    assert large["problems"] == [] and large["outcome"] == result["outcome"]
    assert result["model"] == "models:/scaling-tiny/1"
    assert f"and measured {result['loss_nats']:.3f}" in report(studied)


@pytest.mark.slow
def test_a_changed_run_is_held_against_no_forecast(studied: Path) -> None:
    assert (
        scaling("recommend", "tiny.yaml", "-w", "ws", "--flops", "1e10", "--out", "c.yaml", cwd=studied).returncode == 0
    )
    file = yaml.safe_load((studied / "c.yaml").read_text())
    file["run"]["seed"] = 99
    (studied / "c.yaml").write_text(yaml.safe_dump(file))
    done = scaling("train", "c.yaml", "-w", "ws", *PLAIN, cwd=studied)
    assert done.returncode == 0, done.stderr
    assert "is not the one that was recommended" in " ".join(done.stderr.split())
    again = scaling("train", "c.yaml", "-w", "ws", *PLAIN, "--json", cwd=studied)
    assert json.loads(again.stdout)["outcome"] is None


@pytest.mark.slow
def test_wrong_questions_are_one_line(studied: Path) -> None:
    for wanted, told in (
        (("--flops", "1e11", "--usd", "5"), "exactly one"),
        (("--loss", "0.01"), "loss is 0.01"),
        (("--flops", "1e11", "--max-params", "-3"), "--max-params is -3"),
        (("--flops", "1e11", "--pick", "serving"), "needs serve_tokens"),
    ):
        refused = scaling("recommend", "tiny.yaml", "-w", "ws", *wanted, cwd=studied)
        assert refused.returncode == 2 and told in refused.stderr, refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
