"""The processes that share one run: who this one is, what the others say, and which part of the work is its own.

``torchrun`` starts them. Batches are split by rows, held-out windows by number; losses are averaged, and what a process
decides from its own clock or signals is agreed upon, so that all take the same turn at the same step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.loop.numerics import Numerics

__all__ = ["ALONE", "World", "join_world", "whole"]

PATIENCE = timedelta(hours=24)
"""How long the others wait while rank 0 prepares a corpus; a process that dies is noticed at once all the same."""


@dataclass(frozen=True)
class World:
    """Rank and number of the processes; by default a single one, for which everything here costs nothing."""

    rank: int = 0
    ranks: int = 1
    control: dist.ProcessGroup | None = None
    """On the CPU, for what hosts agree upon: a GPU's work is not waited for."""
    saving: dist.ProcessGroup | None = None
    """On the CPU, for the thread that writes checkpoints; it would cut in on the messages of any other group."""

    def check(self, spec: RunSpec, numerics: Numerics) -> None:
        """:class:`UserError` if these processes can't share ``spec`` as ``numerics`` say."""
        if numerics.ranks != self.ranks:
            raise UserError(
                f"the run is for {numerics.ranks} processes and {self.ranks} were started: "
                f"start it by `torchrun --nproc-per-node {numerics.ranks}`"
            )
        if self.ranks == 1:
            return
        if numerics.parallel == "none":
            raise UserError(f"parallel is none and {self.ranks} processes were started: take ddp or fsdp, or start one")
        if spec.sequences_per_step % self.ranks:
            raise UserError(
                f"global_batch_tokens {spec.global_batch_tokens} is {spec.sequences_per_step} sequences a step, which "
                f"{self.ranks} processes can't share equally: start as many as divide {spec.sequences_per_step}"
            )
        if numerics.parallel == "fsdp" and spec.optimizer.name == "muon":
            raise UserError("parallel fsdp cuts the matrices that muon needs whole: use ddp")

    # What the others say

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the ranks, the same bits on each; nobody waits for it where ``value`` is on a GPU."""
        if self.ranks == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.ranks

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on at least one rank."""
        if self.ranks == 1:
            return flag
        flags = torch.tensor(flag, dtype=torch.int32)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def wait(self) -> None:
        """Until all are here."""
        if self.ranks > 1:
            dist.barrier(group=self.control)

    @contextmanager
    def first(self) -> Iterator[None]:
        """Rank 0 goes through the block before the others; where it fails, they leave without a word."""
        failed = True
        try:
            if self.rank > 0 and self.any(False):
                raise SystemExit(2)
            yield
            failed = False
        finally:
            if self.rank == 0:
                self.any(failed)

    # Its part of the work

    def rows(self, count: int) -> slice:
        """This rank's rows of a batch of ``count``, which the ranks divide."""
        share = count // self.ranks
        return slice(self.rank * share, (self.rank + 1) * share)

    def share(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's part of ``windows`` (W,); all parts have one length, so the last ranks' begin again at the first
        windows. :meth:`gather` puts them together."""
        if self.ranks == 1:
            return windows
        each = -(-len(windows) // self.ranks)
        return np.resize(windows, each * self.ranks)[self.rows(each * self.ranks)]

    def gather(self, part_WT: NDArray[np.float32], windows: int) -> NDArray[np.float32]:
        """The values of all ``windows`` from the ranks' parts, on every rank."""
        if self.ranks == 1:
            return part_WT
        own = torch.from_numpy(part_WT)
        parts = [torch.empty_like(own) for _ in range(self.ranks)]
        dist.all_gather(parts, own, group=self.control)
        return torch.cat(parts)[:windows].numpy()


ALONE = World()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that lies in shards put together, on every rank; any other as it is."""
    together: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return together


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """The world that ``torchrun`` started this process in, or :data:`ALONE`.

    Collectives on a GPU go through NCCL, each rank on the GPU of its local number; on a CPU through gloo.
    """
    # WORLD_SIZE alone says nothing: clusters set it too.
    ranks = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if ranks == 1:
        yield ALONE
        return
    store, rank, _ = next(rendezvous("env://"))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # All on one machine: a host name that resolves to nothing, or to a device that is down, is then no matter.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        # torchrun's store outlives its processes: restarted ones would find the addresses of the dead.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt-{attempt}", store)  # type: ignore[attr-defined]
    elif _restarts_find_dead_addresses():
        raise UserError(
            "--max-restarts on several machines needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and --rdzv-backend c10d "
            "(torchrun's store keeps the addresses of dead processes, pytorch issue 135712): set both"
        )
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"{os.environ.get('LOCAL_WORLD_SIZE', ranks)} processes were started on a machine with "
                f"{torch.cuda.device_count()} GPUs: start one a GPU"
            )
        torch.cuda.set_device(local)
        dist.init_process_group("nccl", store=store, rank=rank, world_size=ranks, device_id=torch.device("cuda", local))
    else:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    try:
        yield World(
            rank=rank,
            ranks=ranks,
            control=dist.new_group(backend="gloo", timeout=PATIENCE),
            saving=dist.new_group(backend="gloo"),
        )
    finally:
        dist.destroy_process_group()


def _restarts_find_dead_addresses() -> bool:
    """Whether ``torchrun`` restarts processes of a store that several machines share; they count restarts apart."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return shared and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
