"""A recommendation launched and tried first, by the commands as processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import scaling

PLAIN = ("--device", "cpu", "--precision", "fp32", "--no-compile")
RUN = """
model: {layers: 1, width: 16, heads: 2, ffn_width: 32, context: 32}
tokens: 6400
global_batch_tokens: 64
optimizer: {learning_rate: LR}
schedule: {warmup: 0}
corpus: {source: text, vocabulary: 260, held_out: 0.3, cut_bytes: 256}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for number in range(120):
        (tmp_path / "text" / f"{number}.txt").write_text(f"the cat sat on mat {number} and it sat and sat. " * 5)
    (tmp_path / "mine.yaml").write_text(RUN.replace("LR", "1e-2"))
    return tmp_path


@pytest.mark.slow
def test_a_run_is_tried_launched_by_its_script_and_finished(folder: Path) -> None:
    tried = scaling("train", "mine.yaml", *PLAIN, "--preflight", "--json", cwd=folder)
    assert tried.returncode == 0, tried.stderr
    found = json.loads(tried.stdout)
    assert found["passed"] and [check["status"] for check in found["checks"]][:7] == ["ok"] * 7
    assert found["finish_seconds"]["low"] <= found["finish_seconds"]["high"]
    assert not list((folder / "workspace" / "trained").iterdir())

    made = scaling("launch", "mine.yaml", "--to", "torchrun", "--to", "table", "--device", "cpu", "--json", cwd=folder)
    assert made.returncode == 0, made.stderr
    targets = json.loads(made.stdout)["targets"]
    assert [one["target"] for one in targets] == ["torchrun", "table"]
    done = subprocess.run(
        [targets[0]["start"], *PLAIN[2:], "--json"], cwd="/", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "finished" and result["folder"] == str(folder / "launch-mine" / "run")


def test_a_run_that_would_diverge_exits_with_3_and_says_what_to_do(folder: Path) -> None:
    (folder / "mine.yaml").write_text(RUN.replace("LR", "1e30"))
    tried = scaling("train", "mine.yaml", *PLAIN, "--preflight", cwd=folder)
    assert tried.returncode == 3, tried.stderr
    assert "fail      first steps" in tried.stdout and "lower the learning rate (1e+30)" in tried.stdout
    assert tried.stdout.strip().splitlines()[-1].startswith("not ready: 1 fail")


def test_what_cannot_be_launched_is_said_in_a_line(folder: Path) -> None:
    made = scaling("launch", "mine.yaml", "--to", "torchrun", "--gpus-per-node", "2", "--tensor", "2", cwd=folder)
    assert made.returncode == 2
    assert made.stderr.count("\n") == 1 and "export --to torchtitan" in made.stderr
    assert not (folder / "launch-mine").exists()


def test_a_layout_is_worked_out_for_gpus_and_not_beside_another(folder: Path) -> None:
    made = scaling("launch", "mine.yaml", "--to", "torchtitan", "--to", "slurm", "--gpus", "2", "--json", cwd=folder)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["placement"]["plan"]["global_batch_sequences"] == 2
    assert [one["layout"].split(",")[0] for one in found["targets"]] == ["one machine x 2: 2 data"] * 2
    both = scaling("launch", "mine.yaml", "--to", "torchtitan", "--gpus", "2", "--tensor", "2", cwd=folder)
    assert both.returncode == 2 and "--gpus has the layout worked out, and --tensor says it" in both.stderr
