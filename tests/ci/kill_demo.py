"""Kills ``make demo`` at random moments; it must end with the same numbers: ``kill_demo.py CONTROL KILLS SEED``.

CONTROL is the workspace of an undisturbed demo. Every third kill is SIGKILL of the whole process group, the others
of the command alone (its workers must then end by themselves) and SIGTERM in turn.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def fitted(workspace: Path) -> dict[str, Any]:
    """The fitted numbers, without how long the fit took."""
    fit: dict[str, Any] = json.loads((workspace / "studies/quickstart/fit.json").read_text())
    return {key: value for key, value in fit.items() if key != "seconds"}


def losses(workspace: Path) -> list[list[str]]:
    """run_key, tokens and loss of every run, as written."""
    rows = [line.split(",") for line in (workspace / "studies/quickstart/observations.csv").read_text().splitlines()]
    columns = [rows[0].index(name) for name in ("run_key", "tokens", "loss_nats", "bits_per_byte")]
    return [[row[column] for column in columns] for row in rows]


def main(control: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "demo"
        command = ["make", "demo", f"DEMO={workspace}"]
        for kill in range(kills):
            process = subprocess.Popen(
                command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            wait = moments.uniform(1, 50)
            try:
                process.wait(wait)
                print(f"kill {kill + 1}: the demo had ended after {wait:.0f} s")
                continue
            except subprocess.TimeoutExpired:
                pass
            if kill % 3 == 0:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                inner = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
                os.kill(int(inner[0]) if inner else process.pid, (signal.SIGKILL, signal.SIGTERM)[kill % 3 - 1])
            process.wait()
            print(f"kill {kill + 1}: after {wait:.0f} s", flush=True)
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"the last run ended after {time.monotonic() - started:.0f} s")
        assert losses(workspace) == losses(control), "the runs' losses differ"
        assert fitted(workspace) == fitted(control), "the fitted numbers differ"
        from check_demo import check

        from sweeps.workspace import Workspace

        check(Workspace(workspace), "quickstart")
    print(f"same losses and fitted numbers as {control} after {kills} kills")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
