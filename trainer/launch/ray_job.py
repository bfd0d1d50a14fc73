"""Starts the run that ``job.json`` beside this file describes on a Ray cluster: one ``torchrun`` a machine.

    ray job submit --working-dir . -- python ray_job.py     on the cluster whose dashboard RAY_API_SERVER_ADDRESS names
    python ray_job.py                                       on the one that RAY_ADDRESS names, or on this machine

Stopped by SIGTERM or Ctrl-C (``ray job stop``), the processes save; started again, the run goes on from there. This
file needs Ray alone; the machines need the package that trains, the corpus and the run's folder under the same paths.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


class Node:
    """One machine's processes, in a session of their own: a signal comes from the driver alone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def address(self) -> tuple[str, int]:
        with socket.socket() as found:
            found.bind(("", 0))
            return ray.util.get_node_ip_address(), int(found.getsockname()[1])

    def start(self, arguments: list[str], run: str, environment: dict[str, str]) -> None:
        file = Path(self._folder.name, "run.yaml")
        file.write_text(run, encoding="utf-8")
        command = [sys.executable, *(str(file) if part == "{run}" else part for part in arguments)]
        self._process = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)

    def poll(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def main(arguments: list[str]) -> int:
    job: dict[str, Any] = json.loads(Path(__file__).with_name("job.json").read_text(encoding="utf-8"))
    ray.init(log_to_driver=True)
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda given, _frame: stop.append(given))  # after Ray's own, which would end the driver

    nodes, each = job["nodes"], {"CPU": job["cpus_per_node"], "GPU": job["gpus_per_node"]}
    bundle = {name: count for name, count in each.items() if count}
    group = placement_group([bundle] * nodes, strategy="STRICT_SPREAD" if nodes > 1 else "PACK")
    while not ray.wait([group.ready()], timeout=5)[0]:
        print(f"waiting for {nodes} machines with {bundle}", flush=True)
        if stop:
            return 128 + stop[0]
    actors = [
        ray.remote(Node)
        .options(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        )
        .remote()
        for index in range(nodes)
    ]
    host, port = ray.get(actors[0].address.remote())
    run = Path(__file__).with_name("run.yaml").read_text(encoding="utf-8")
    for rank, actor in enumerate(actors):
        torchrun = [part.format(node_rank=rank, address=host, port=port) for part in job["torchrun"]]
        command = [*torchrun, "-m", "scaling.cli.main", "train", "{run}", *job["train"], *arguments]
        ray.get(actor.start.remote(command, run, job["environment"]))
    told = False
    while True:
        codes = ray.get([actor.poll.remote() for actor in actors])
        running = [actor for actor, code in zip(actors, codes, strict=True) if code is None]
        if not running:
            return int(any(codes))
        # Once: a second signal would not wait for the step to end.
        if not told and (stop or any(codes)):
            told = True
            ray.get([actor.signal.remote(signal.SIGTERM) for actor in running])
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
