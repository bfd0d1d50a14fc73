"""One run from its file to text and to transformers' layout, by the commands as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import scaling

RUN = """
model: {layers: 1, width: 16, heads: 2, ffn_width: 32, context: 32}
tokens: TOKENS
global_batch_tokens: 64
optimizer: {learning_rate: 1e-2}
corpus: {source: text, vocabulary: 260, held_out: 0.3, cut_bytes: 256}
"""
PLAIN = ("--device", "cpu", "--precision", "fp32", "--no-compile")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for number in range(120):
        (tmp_path / "text" / f"{number}.txt").write_text(f"the cat sat on mat {number} and it sat and sat. " * 5)
    (tmp_path / "mine.yaml").write_text(RUN.replace("TOKENS", "6400"))
    return tmp_path


def test_a_run_is_trained_talked_to_and_exported(folder: Path) -> None:
    done = scaling("train", "mine.yaml", *PLAIN, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "finished" and result["tokens"] == 6400
    name = Path(result["folder"]).name
    assert name == f"mine-{result['run_key'][:8]}"

    shown = scaling("generate", name, "the cat", "--max-tokens", "40", "--seed", "7", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("the cat")
    assert "goes on from the last 16" in shown.stderr
    again = scaling("generate", name, "the cat", "--max-tokens", "40", "--seed", "7", "--json", cwd=folder)
    assert json.loads(again.stdout)["text"] + "\n" == shown.stdout

    # Without transformers.
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        f"sys.argv = ['scaling', 'export', {result['run_key'][:12]!r}, '--out', 'hf']\n"
        "import scaling.cli.main as m; m.main()"
    )
    exported = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert exported.returncode == 0, exported.stderr
    assert {path.name for path in (folder / "hf").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    again = scaling("export", name, "--out", "hf", cwd=folder)
    assert again.returncode == 2 and "already exists" in again.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_stopped_run_is_saved_and_the_same_command_continues(folder: Path, number: int, code: int) -> None:
    (folder / "mine.yaml").write_text(RUN.replace("TOKENS", "64e6"))
    command = [sys.executable, "-m", "scaling.cli.main", "train", "mine.yaml", *PLAIN, "--out", "run"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step " in line:
                break
        time.sleep(0.2)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == code
    assert "stopped and saved at step" in said
    assert len(list((folder / "run").glob("step-*.checkpoint"))) == 1
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        assert any("resumed at step" in line for line in process.stderr)
        process.kill()


def _on_two(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*torchrun, "-m", "scaling.cli.main", "train", "mine.yaml", *PLAIN, *arguments], cwd=cwd, env=os.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_one_run_stop_together_and_say_it_once(folder: Path) -> None:
    with _on_two("--parallel", "fsdp", "--json", cwd=folder) as process:
        out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    result = json.loads(out)  # printed once, or it would be no JSON
    assert result["status"] == "finished" and result["numerics"].endswith("t1 fsdp2")
    shown = scaling("generate", Path(result["folder"]).name, "the cat", "--max-tokens", "5", cwd=folder)
    assert shown.returncode == 0 and shown.stdout.startswith("the cat")

    (folder / "mine.yaml").write_text(RUN.replace("TOKENS", "64e6"))
    with _on_two("--out", "run", cwd=folder) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step " in line:
                break
        time.sleep(0.2)
        process.terminate()
        said = process.stderr.read()
    assert said.count("stopped and saved at step") == 1
    assert len(list((folder / "run").glob("step-*.checkpoint"))) >= 1


@pytest.mark.slow
def test_a_mistake_under_torchrun_is_said_once(folder: Path) -> None:
    with _on_two("--corpus", "nowhere", cwd=folder) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("scaling: ") == 1
