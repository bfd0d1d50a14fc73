"""Exported scripts, started as they are: by bash, two processes and one, under a stand-in for SLURM, and by Ray."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from trainer.launch.job import Job
from trainer.launch.placement import Placement
from trainer.launch.write import write

from .conftest import MakeJob

FEW, MANY = 40, 100_000
PLAIN = ("--precision", "fp32", "--no-compile")


def _environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path.cwd()), "GLOO_SOCKET_IFNAME": "lo", "COLUMNS": "200"} | more


def _started(command: list[str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(**more),
        start_new_session=True,
    )  # fmt: skip


def _until(process: subprocess.Popen[str], words: str) -> str:
    """What it says up to a line with ``words``."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if words in line:
            return "".join(said)
    raise AssertionError(f"it ended without {words!r}: {''.join(said)}")


def _curve(job: Job) -> dict[int, float]:
    with (job.out / "run" / "curve.csv").open() as file:
        return {int(row["step"]): float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train_loss"}


def _checkpoint(job: Job, seconds: float = 60.0) -> int:
    """The step of the first checkpoint that the run writes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = sorted((job.out / "run").glob("step-*.checkpoint"))
        if found:
            return int(found[-1].name[5:17])
        time.sleep(0.1)
    raise AssertionError("no checkpoint was written")


def _run(command: list[str], **more: str) -> str:
    with _started(command, **more) as process:
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return said


def _scripts_are_bash(job: Job) -> None:
    for script in [*job.out.rglob("*.sh"), *job.out.rglob("*.sbatch")]:
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_script_trains_the_run_stops_and_goes_on_with_equal_losses(make_job: MakeJob, processes: int) -> None:
    steps = 3000 if processes == 1 else 500
    job = make_job(placement=Placement.by_degrees(gpus_per_node=processes, device="cpu"), steps=steps)
    write(job, ["torchrun"], force=False)
    _scripts_are_bash(job)
    script = str(job.out / "launch.sh")

    with _started([script, *PLAIN, "--checkpoint-seconds", "1"]) as process:
        _checkpoint(job)
        # To all at once, as a terminal or a cluster's manager sends it: torchrun then hands it on a second time.
        os.killpg(process.pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert said.count("stopped and saved at step") == 1, said
    assert process.returncode == (143 if processes == 1 else 1)
    assert not (job.out / "run" / "result.json").exists()
    said = _run([script, *PLAIN])
    assert "resumed at step" in said
    stopped = _curve(job), json.loads((job.out / "run" / "result.json").read_text())
    assert stopped[1]["status"] == "finished" and stopped[1]["resumed"] == 1

    straight = str(job.out / "straight")
    _run([script, *PLAIN], RUN=straight)
    with Path(straight, "curve.csv").open() as file:
        curve = {int(row["step"]): float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train_loss"}
    assert curve == stopped[0]
    assert json.loads(Path(straight, "result.json").read_text())["weights_hash"] == stopped[1]["weights_hash"]


@pytest.mark.slow
def test_a_script_passes_further_arguments_on(make_job: MakeJob) -> None:
    job = make_job(placement=Placement.by_degrees(gpus_per_node=2, device="cpu"), steps=FEW)
    write(job, ["torchrun"], force=False)
    said = _run([str(job.out / "launch.sh"), *PLAIN, "--preflight"])
    assert "fsdp2" in said and "ready" in said and said.count("equal to the bit") == 1
    assert not (job.out / "run").exists()


# SLURM is stood in for by three programs that do what its manual says of the calls that the script makes.
_SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
"$@" &
echo $! > "$STAND_IN/step"
wait $!
"""
_SCANCEL = """#!/bin/bash
echo "scancel $*" >> "$STAND_IN/calls"
# To every process of the step, those under torchrun too.
kill -TERM $(cat "$STAND_IN/step") $(pgrep -P "$(cat "$STAND_IN/step")")
"""
_SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$STAND_IN/calls"
[[ $1 == show ]] && echo localhost
exit 0
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a batch script's job."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, program in (("srun", _SRUN), ("scancel", _SCANCEL), ("scontrol", _SCONTROL)):
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    (folder / "calls").touch()
    return {
        "STAND_IN": str(folder),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
    }


@pytest.mark.slow
def test_a_batch_script_saves_and_queues_itself_again_before_its_time_is_up(
    make_job: MakeJob, slurm: Mapping[str, str]
) -> None:
    job = make_job(placement=Placement.by_degrees(gpus_per_node=2, device="cpu"), steps=MANY)
    write(job, ["slurm"], force=False)
    _scripts_are_bash(job)
    script = str(job.out / "launch.sbatch")
    with _started([script, *PLAIN, "--checkpoint-seconds", "1"], **slurm) as process:
        _checkpoint(job)
        process.send_signal(signal.SIGUSR1)
        said, _ = process.communicate(timeout=120)
    assert said.count("stopped and saved at step") == 1, said
    calls = Path(slurm["STAND_IN"], "calls").read_text().splitlines()
    number = slurm["SLURM_JOB_ID"]
    assert calls == [
        "scontrol show hostnames localhost",
        f"scancel --signal=TERM {number}",
        f"scontrol requeue {number}",
    ]

    # Preempted: SLURM signals the step itself and queues the job again.
    with _started([script, *PLAIN, "--checkpoint-seconds", "1"], **slurm) as process:
        _until(process, "resumed at step")
        time.sleep(1)
        subprocess.run(["scancel"], env=_environment(**slurm), check=False)
        said, _ = process.communicate(timeout=120)
    assert said.count("stopped and saved at step") == 1, said
    assert "queued again" not in said and process.returncode != 0


@pytest.mark.slow
def test_a_batch_script_that_finishes_is_not_queued_again(make_job: MakeJob, slurm: Mapping[str, str]) -> None:
    job = make_job(placement=Placement.by_degrees(gpus_per_node=1, device="cpu"), steps=FEW)
    write(job, ["slurm"], force=False)
    _run([str(job.out / "launch.sbatch"), *PLAIN], **slurm)
    assert json.loads((job.out / "run" / "result.json").read_text())["status"] == "finished"
    assert Path(slurm["STAND_IN"], "calls").read_text() == ""


def test_a_batch_script_asks_for_what_the_layout_says(make_job: MakeJob) -> None:
    job = make_job(placement=Placement.by_degrees(nodes=2, gpus_per_node=4))
    write(job, ["slurm"], force=False)
    text = (job.out / "launch.sbatch").read_text()
    for option in ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--requeue", "--signal=B:USR1@600"):
        assert f"#SBATCH {option}\n" in text
    assert "--nnodes 2 --nproc-per-node 4" in text and "--parallel fsdp" in text


# Ray, for real


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster of this machine with a dashboard, which takes jobs."""
    ray = Path(sys.executable).with_name("ray")
    if not ray.exists():
        pytest.skip("ray is not installed: pip install 'lossfrontier[ray]'")
    port, dashboard = _free_port(), _free_port()
    environment = _environment(
        RAY_USAGE_STATS_ENABLED="0",
        PATH=f"{ray.parent}:{os.environ['PATH']}",
        RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{dashboard}",
    )
    command = [
        *(str(ray), "start", "--head", "--block", "--num-cpus", "4", "--node-ip-address", "127.0.0.1"),
        *("--port", str(port), "--dashboard-port", str(dashboard), "--object-store-memory", "80000000"),
        *("--dashboard-agent-listen-port", str(_free_port()), "--temp-dir", f"/tmp/ray-{os.getpid()}"),
    ]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as head:
        try:
            deadline = time.monotonic() + 90
            while subprocess.run(
                [str(ray), "job", "list"], env=environment, capture_output=True, timeout=60, check=False
            ).returncode:
                assert head.poll() is None and time.monotonic() < deadline, "the cluster does not come up"
                time.sleep(1)
            yield environment
        finally:
            head.terminate()
            try:
                head.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_ray_job_trains_is_stopped_saved_and_goes_on(make_job: MakeJob, cluster: dict[str, str]) -> None:
    job = make_job(placement=Placement.by_degrees(gpus_per_node=2, device="cpu"), steps=600)
    write(job, ["ray"], force=False)
    _scripts_are_bash(job)
    submit = [str(job.out / "ray" / "submit.sh"), *PLAIN]
    with _started([*submit, "--checkpoint-seconds", "1"], **cluster) as process:
        name = _until(process, "submitted successfully").split("Job '")[1].split("'")[0]
        _checkpoint(job, 150)
        subprocess.run(["ray", "job", "stop", name], env=cluster, capture_output=True, timeout=120, check=False)
        said, _ = process.communicate(timeout=120)
    assert said.count("stopped and saved at step") == 1, said
    said = _run(submit, **cluster)
    assert "resumed at step" in said
    result = json.loads((job.out / "run" / "result.json").read_text())
    assert result["status"] == "finished" and result["resumed"] == 1 and result["numerics"].endswith("fsdp2")
