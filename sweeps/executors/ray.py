"""Workers on a Ray cluster: each a child process of an actor, which holds its share of a node's processors and GPUs.

The worker is the same process as anywhere else, so its threads are set before it imports torch, and it saves and gives
its run back when the actor's process dies. Ray only places it and tells of its end; the ledger says what it trains.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from scaling.errors import UserError
from sweeps.execute_settings import RayExecute
from sweeps.executors import DeadWorker
from sweeps.executors.command import WorkerCommand, cause_of, kill_tree, owner_of
from sweeps.executors.local import GRACE_SECONDS, usable_cores
from sweeps.executors.mps import mps_environment
from sweeps.ledger.ledger import Stage
from sweeps.ledger.owner import Owner

__all__ = ["RayExecutor"]

KILL_SECONDS = 5.0
OBJECT_STORE_BYTES = 80_000_000
"""The least that Ray takes; nothing is put into it."""


class _Host:
    """The actor: starts one worker on its node, waits for its end, and passes signals on."""

    def __init__(self, command: WorkerCommand, gpus: float) -> None:
        environment, note = mps_environment(gpus)
        if note:
            print(note, flush=True)
        self._command = command
        self._process = command.spawn(environment)
        self._owner = owner_of(self._process)

    def owner(self) -> Owner:
        return self._owner

    def wait(self) -> int:
        return self._process.wait()

    def signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            kill_tree(self._process)
        elif self._process.poll() is None:
            self._process.send_signal(number)


@dataclass
class _Worker:
    host: Any
    command: WorkerCommand
    told_owner: ray.ObjectRef[Owner]
    ended: ray.ObjectRef[int]
    known_owner: Owner | None = None

    @property
    def owner(self) -> Owner | None:
        """None until the cluster has found a place for it."""
        if self.known_owner is None and _is_ready(self.told_owner):
            try:
                self.known_owner = ray.get(self.told_owner)
            except ray.exceptions.RayError:
                return None
        return self.known_owner


class RayExecutor:
    """Workers as Ray actors, one each."""

    def __init__(self, command: WorkerCommand, settings: RayExecute) -> None:
        _connect(settings.address)
        self._command, self._gpus = command, settings.gpus_per_worker
        self._workers: list[_Worker] = []
        self._started = 0
        self._actor = ray.remote(_Host).options(
            num_cpus=settings.cpus_per_worker,
            num_gpus=settings.gpus_per_worker,
            max_restarts=0,
            # One call waits for the worker's end; another must be able to stop it.
            max_concurrency=3,
        )

    def start(self, stage: Stage, count: int) -> None:
        for _ in range(count):
            name = f"ray-{os.getpid()}-{self._started}"
            self._started += 1
            command = self._command.for_stage(stage, name)
            host = self._actor.remote(command, self._gpus)
            self._workers.append(_Worker(host, command, host.owner.remote(), host.wait.remote()))

    def alive(self) -> int:
        return sum(not _is_ready(worker.ended) for worker in self._workers)

    def holds(self, owner: Owner) -> bool:
        return any(worker.owner == owner for worker in self._workers)

    def collect_dead(self) -> Sequence[DeadWorker]:
        dead = []
        for worker in [w for w in self._workers if _is_ready(w.ended)]:
            owner = worker.owner
            cause = _cause(worker)
            self._workers.remove(worker)
            ray.kill(worker.host)
            if cause:
                dead.append(DeadWorker(owner, cause))
        return dead

    def kill(self, owner: Owner) -> None:
        for worker in [w for w in self._workers if w.owner == owner]:
            # A stopped process takes no notice of its parent's death, so it is killed first.
            ray.wait([worker.host.signal.remote(signal.SIGKILL)], timeout=KILL_SECONDS)
            ray.kill(worker.host)
            self._workers.remove(worker)

    def stop(self) -> None:
        for worker in self._workers:
            worker.host.signal.remote(signal.SIGTERM)
        ends = [worker.ended for worker in self._workers if worker.owner]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=GRACE_SECONDS)
        for worker in self._workers:
            if not _is_ready(worker.ended):
                ray.wait([worker.host.signal.remote(signal.SIGKILL)], timeout=KILL_SECONDS if worker.owner else 0)
            else:
                _cause(worker)
            ray.kill(worker.host)
        self._workers.clear()


def _is_ready(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _cause(worker: _Worker) -> str | None:
    """How an ended worker ended, if badly; the log of one that ended well is forgotten."""
    try:
        cause = cause_of(ray.get(worker.ended), worker.command.log)
    except ray.exceptions.RayError as error:
        return f"Ray lost its worker: {' '.join(str(error).split())[:300]}; log: {worker.command.log}"
    if cause is None:
        worker.command.forget_log()
    return cause


def _connect(address: str | None) -> None:
    """Join the cluster at ``address``, or start one on this machine; who imports this module has closed that one
    to others (``executor_for``).

    A session lasts until this process ends: the next stage of the study finds it.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # Ray takes over SIGTERM, which whoever conducts the study has its own use for.
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        if address is not None:
            try:
                ray.init(address=address, **quiet)
                return
            except ConnectionError:
                raise UserError(
                    f"execute.address is {address!r}: no Ray cluster is there; null starts one on this machine"
                ) from None
        ray.init(
            address="local",
            num_cpus=usable_cores(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
