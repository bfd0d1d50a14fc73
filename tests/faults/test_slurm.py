"""SLURM without SLURM: fault 29 with stand-ins for its commands in PATH, which run the batch scripts for real."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from scaling.errors import UserError
from sweeps.execute_settings import SlurmExecute
from sweeps.executors.choose import executor_for
from sweeps.executors.command import WorkerCommand

from .conftest import Outcome, Site, eventually, finish

submitit = pytest.importorskip("submitit", reason="an extra: pip install 'lossfrontier[slurm]'")

STAND_INS = {
    # Runs each task of the array in a session of its own, and remembers its process to be signalled and asked for.
    "sbatch": r"""
        case "$1" in --requeue-task) task=$2; script=$(cat "$FAKE/script-${task%_*}");; *)
          id=$(( $(cat "$FAKE/last" 2>/dev/null || echo 100) + 1 )); echo $id > "$FAKE/last"
          echo "$1" > "$FAKE/script-$id"; cp "$1" "$FAKE/$id.sh"; echo "$FAKE/$id.sh" > "$FAKE/script-$id"
          last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$1")
          for n in $(seq 0 ${last:-0}); do
            if [ -n "$last" ]; then "$0" --requeue-task ${id}_$n; else "$0" --requeue-task $id; fi
          done
          echo "Submitted batch job $id"; exit 0;;
        esac
        export SLURM_JOB_ID=${task%_*} SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
        export SLURM_NODEID=0
        case "$task" in *_*) export SLURM_ARRAY_JOB_ID=${task%_*} SLURM_ARRAY_TASK_ID=${task#*_};; esac
        setsid bash "$script" > "$FAKE/out-$task" 2>&1 < /dev/null &
        echo $! > "$FAKE/pid-$task"
    """,
    # The script's own name for the log stays; the command begins after srun's options.
    "srun": r"""
        while [ "${1#--}" != "$1" ]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
        exec "$@"
    """,
    "scontrol": r"""
        [ "$1" = requeue ] || exit 1
        echo "$2" >> "$FAKE/requeued"
        ( sleep 1; sbatch --requeue-task "$2" ) > /dev/null 2>&1 &
    """,
    "scancel": r"""
        for task in "$FAKE"/pid-$1*; do kill -TERM -- -$(cat "$task") 2>/dev/null; done; true
    """,
    "sacct": r"""
        echo "JobID|State|NodeList"
        for file in "$FAKE"/pid-*; do
          if kill -0 -- -$(cat "$file") 2>/dev/null; then state=RUNNING; else state=COMPLETED; fi
          echo "${file#"$FAKE"/pid-}|$state|here"
        done
    """,
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands, first in PATH; returns their folder."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in STAND_INS.items():
        file = folder / name
        file.write_text("#!/bin/bash\n" + textwrap.dedent(script), encoding="utf-8")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder


@pytest.mark.slow
def test_a_preempted_job_gives_its_run_back_is_queued_again_and_goes_on(
    site: Site, control: Outcome, slurm: Path
) -> None:
    site.write(on="slurm", minutes=30)
    engine = site.sweep()
    row = eventually(lambda: [row for row in site.under_way() if row.step > 20])[0]
    # The warning goes to the whole group, as SLURM may send it: the job, and the batch script's shell, which waits.
    job = next(p for p in _jobs(site))
    os.kill(job, signal.SIGUSR2)
    requeued = eventually(lambda: (slurm / "requeued").exists() and (slurm / "requeued").read_text().split())
    finish(engine)
    site.assert_unharmed(control)
    assert len(requeued) == 1
    assert requeued[0].startswith("101_"), "both workers are one array job"
    assert {one.failures for one in site.rows()} == {0}, "preemption is nobody's fault"
    assert row.key in control
    pickles = site.workspace / "logs" / "slurm"
    assert stat.S_IMODE(pickles.stat().st_mode) == 0o700


def _jobs(site: Site) -> list[int]:
    """submitit's processes on the compute node, each the parent of one worker."""
    return [worker.ppid() for worker in site.workers()]


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_is_noticed_and_replaced(site: Site, control: Outcome, slurm: Path) -> None:
    site.write(on="slurm")
    engine = site.sweep()
    site.suspended().kill()
    finish(engine)
    site.assert_unharmed(control)
    assert [row.failure_kind for row in site.rows() if row.failures] == ["machine"]


@pytest.mark.slow
def test_submitits_own_interruption_makes_the_worker_save_and_asks_for_another_turn(
    site: Site, control: Outcome
) -> None:
    from sweeps.executors.slurm import SlurmExecutor

    stopped = site.sweep()
    eventually(site.workers)
    stopped.kill()
    stopped.communicate()
    eventually(lambda: not site.workers(), seconds=30)
    command = WorkerCommand(workspace=str(site.workspace), study="tiny", threads=1, checkpoint_seconds=0.3)
    executor = SlurmExecutor(command, SlurmExecute(workers=1), cluster="local")
    executor.start("sweep", 1)
    eventually(lambda: [row for row in site.under_way() if row.step > 20])
    (parent,) = _jobs(site)
    os.kill(parent, signal.SIGUSR2)
    eventually(lambda: executor.alive() == 0)
    assert site.workers() == []
    assert {row.state for row in site.rows()} <= {"planned", "finished"}
    executor.stop()
    site.write(on="local")
    finish(site.sweep())
    site.assert_unharmed(control)
    assert any((row.result or {})["resumed"] for row in site.rows())


def test_without_slurms_commands_there_is_one_clear_line(site: Site, tmp_path: Path) -> None:
    site.write(on="slurm")
    empty = tmp_path / "no-slurm"
    empty.mkdir()
    output = finish(site.sweep(PATH=str(empty)), 2)
    assert "execute.on is slurm, and sbatch, srun, sacct, scancel, scontrol can't be found" in " ".join(output.split())
    assert "Traceback" not in output


def test_an_executor_that_is_not_installed_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    for name in [name for name in sys.modules if name.startswith("sweeps.executors.slurm")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"submitit is not installed: pip install 'lossfrontier\[slurm\]'"):
        executor_for(SlurmExecute(workers=1), tmp_path, "tiny", 1)


HOSTILE = [
    "$(touch MARK)",
    "`touch MARK`",
    "a'; touch MARK; '",
    'a"; touch MARK; "',
    "a && touch MARK",
    "-x; touch MARK",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_do_nothing_in_a_batch_script(slurm: Path, tmp_path: Path, value: str) -> None:
    from sweeps.executors.slurm import SlurmExecutor

    workspace = tmp_path / f"work {value.replace('/', '')}"
    settings = SlurmExecute(workers=1, partition=value, account=value, sbatch={"comment": value, "exclusive": True})
    executor = SlurmExecutor(WorkerCommand(workspace=str(workspace), study="tiny", threads=1), settings)
    script = executor._submitit._executor._make_submission_file_text("echo ran", "id")
    assert "#SBATCH --exclusive\n" in script
    # What a shell makes of it: SLURM's options are comments, and the folder is one word of srun's.
    (slurm / "srun").write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(workspace) in ran.stdout
    assert not list(tmp_path.rglob("MARK"))


@pytest.mark.parametrize("field", ["partition", "account"])
def test_a_line_break_would_end_the_comment_and_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        SlurmExecute.model_validate({"workers": 1, field: "a\ntouch MARK"})
    with pytest.raises(ValidationError):
        SlurmExecute.model_validate({"workers": 1, "sbatch": {"comment": "a\ntouch MARK"}})
    with pytest.raises(ValidationError):
        SlurmExecute.model_validate({"workers": 1, "sbatch": {"comment\ntouch MARK\n#": "a"}})
    assert shutil.which("bash")
