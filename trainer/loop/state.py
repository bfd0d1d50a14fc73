"""Everything that a run carries from one step to the next, and how it goes into a checkpoint and back."""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling.record import Record
from scaling.run_spec import RunSpec
from trainer.distributed.world import ALONE, World, whole
from trainer.distributed.wrap import shard
from trainer.loop.numerics import Numerics
from trainer.loop.optimizer import Optimizer
from trainer.loop.spikes import SpikeWatch
from trainer.loop.step import TrainingStep
from trainer.models import build

__all__ = ["Progress", "TrainingState", "weights_hash"]

_SMALLEST_LOSS_SCALE = 2.0**-10


class Progress(Record):
    """How far a run is, over all its parts."""

    schema_version: int = 2
    run_key: str
    trunk_key: str
    step: int = 0
    first_step: int = 0
    """Steps that its trunk had taken when the run left it; they are not this run's work."""
    passed_over: int = 0
    """Batches that were left out when the run went back behind a spike."""
    spikes: tuple[int, ...] = ()
    """Steps (from 1) at which loss or gradient norm stood out."""
    rewinds: int = 0
    timed_tokens: int = 0
    timed_seconds: float = 0.0
    """Tokens and seconds of training steps alone; a part's first step, in which kernels are built, is left out."""
    wall_seconds: float = 0.0
    energy_joules: float | None = 0.0
    """None from the first part on that ran where no counter can be read."""
    resumed: int = 0
    micro_batch_sequences: int | None = None
    """What memory was found to hold, if that was less than asked for."""
    numerics_keys: tuple[str, ...] = ()
    numerics_labels: tuple[str, ...] = ()


class TrainingState:
    """Model, optimiser, and the losses that nobody has looked at yet.

    Of each of the last steps, ``_unread`` holds loss, gradient norm and whether it is a spike. They stay on the device
    so that a step never waits for them, and go into the checkpoint so that a resumed run reports the same.
    """

    def __init__(self, spec: RunSpec, numerics: Numerics, world: World = ALONE) -> None:
        """The state before the first step, its weights drawn from the seed."""
        self.model = build(spec.shape, spec.parametrisation)
        self.model.initialise(spec.seed)
        if world.ranks > 1 and numerics.parallel == "fsdp":
            shard(self.model, numerics, world)
        else:
            self.model.to(numerics.device)
        self.optimizer = Optimizer(self.model, spec.optimizer)
        self.watch = SpikeWatch(spec.spikes, numerics.device)
        self.step = TrainingStep(self.model, self.optimizer, numerics, spec.optimizer.gradient_clip, self.watch, world)
        self._device = numerics.device
        self._unread: list[tuple[Tensor, Tensor, Tensor]] = []
        self._fetched_S3: NDArray[np.float32] | None = None
        self._last: Tensor | float = math.nan
        self._last_norm: Tensor | float = math.nan
        self._overflows = numerics.precision == "fp16"
        self._snapshot: dict[str, Any] | None = None
        self.progress = Progress(run_key=spec.key, trunk_key=spec.trunk_key)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over a checkpoint of the same run; ``ValueError`` if it is another's."""
        progress = Progress.model_validate_json(saved["progress"])
        if progress.run_key != self.progress.run_key:
            raise ValueError(f"the checkpoint is of run {progress.run_key}, not of {self.progress.run_key}")
        self._load(saved)
        self.progress = progress

    def branch_from(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint of this run's trunk; ``ValueError`` if it is another's."""
        trunk = Progress.model_validate_json(saved["progress"])
        if trunk.trunk_key != self.progress.trunk_key:
            raise ValueError(f"the checkpoint is of trunk {trunk.trunk_key}, not of {self.progress.trunk_key}")
        self._load(saved)
        self.progress = Progress(
            **self.progress.model_dump(include={"run_key", "trunk_key"}),
            **trunk.model_dump(
                include={"step", "passed_over", "spikes", "rewinds", "numerics_keys", "numerics_labels"}
            ),
            first_step=trunk.step,
        )

    def _load(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.watch.restore(saved["watch"])
        self.step.scaler.load_state_dict(saved["scaler"])
        self._unread = [(loss, norm, spike != 0) for loss, norm, spike in saved["unread"]]
        self._fetched_S3 = None
        self._snapshot = saved["snapshot"]

    def dump(self) -> dict[str, Any]:
        return self._weights() | {"progress": self.progress.model_dump_json(), "snapshot": self._snapshot}

    def form(self) -> dict[str, Any]:
        """A state of a run that has taken a step, for a checkpoint to be read into."""
        self.optimizer.start_moments()
        return self.dump()

    def _weights(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "watch": self.watch.dump(),
            "scaler": self.step.scaler.state_dict(),
            "unread": self._unread_S3(),
        }

    # Going back behind a spike

    def take_snapshot(self) -> None:
        """Remember this step's state, to go back to."""
        self._snapshot = copy.deepcopy(self._weights()) | {"step": self.progress.step}

    def rewind(self) -> None:
        """Back to the last snapshot; the data since then, the spike's included, is passed over."""
        assert self._snapshot is not None, "a run that may rewind takes its first snapshot before its first step"
        snapshot, progress = self._snapshot, self.progress
        # A copy, since the optimizer takes over the tensors that it is given.
        self._load(copy.deepcopy(snapshot) | {"snapshot": snapshot})
        self.note(
            step=snapshot["step"],
            passed_over=progress.passed_over + progress.step - snapshot["step"],
            rewinds=progress.rewinds + 1,
            spikes=(*progress.spikes, progress.step),
        )

    # Steps

    def advance(self, loss: Tensor, norm: Tensor, spike: Tensor) -> None:
        """Count one step."""
        self._unread.append((loss, norm, spike))
        self._fetched_S3 = None
        self._last, self._last_norm = loss, norm
        self.note(step=self.progress.step + 1)

    def _unread_S3(self) -> Tensor:
        if not self._unread:
            return torch.zeros(0, 3, device=self._device)
        return torch.stack([torch.stack(column_S).float() for column_S in zip(*self._unread, strict=True)], dim=1)

    def _fetched(self) -> NDArray[np.float32]:
        """What is unread, fetched from the device once."""
        if self._fetched_S3 is None:
            self._fetched_S3 = self._unread_S3().cpu().numpy()
        return self._fetched_S3

    def note(self, **changes: Any) -> None:
        self.progress = self.progress.model_copy(update=changes)

    def first_bad_step(self) -> int | None:
        """The first unread step (from 1) whose loss or gradient norm is not a finite number.

        A norm that overflows is fp16's way of asking for a smaller loss scale, and a fault only when none is small
        enough.
        """
        if self._overflows and self.step.scaler.get_scale() < _SMALLEST_LOSS_SCALE:
            return self.progress.step
        looked_at_SV = self._fetched()[:, : 1 if self._overflows else 2]
        bad_S = np.flatnonzero(~np.isfinite(looked_at_SV).all(axis=1))
        return self._step_of(int(bad_S[0])) if len(bad_S) else None

    def read(self) -> dict[str, float]:
        """Mean loss and mean gradient norm of the unread steps, which are then read; their spikes are noted. Empty if
        there is none, as at a step that the run went back to."""
        if not self._unread:
            return {}
        values_S3 = self._fetched().astype(np.float64)
        means = {"train_loss": float(values_S3[:, 0].mean())}
        finite_S = np.isfinite(values_S3[:, 1])
        if finite_S.any():
            means["gradient_norm"] = float(values_S3[finite_S, 1].mean())
        spikes = [self._step_of(index) for index in np.flatnonzero(values_S3[:, 2]).tolist()]
        if spikes:
            self.note(spikes=(*self.progress.spikes, *spikes))
        self._unread.clear()
        self._fetched_S3 = None
        return means

    def _step_of(self, index: int) -> int:
        return self.progress.step - len(self._unread) + 1 + index

    @property
    def last_loss(self) -> float:
        """Loss of the last step of this part of the run, read or not."""
        return float(self._last)

    @property
    def last_norm(self) -> float:
        """The norm of its gradient."""
        return float(self._last_norm)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all weights, in the order of their names; all ranks ask for it if they
    hold shards."""
    digest = hashlib.sha256()
    for name, part in sorted(model.state_dict().items()):
        weight: Any = whole(part)
        digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
