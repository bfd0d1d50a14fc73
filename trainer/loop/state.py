"""Everything that a run carries from one step to the next, and how it goes into a checkpoint and back."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from scaling.record import Record
from scaling.run_spec import RunSpec
from trainer.loop.numerics import Numerics
from trainer.loop.optimizer import Optimizer
from trainer.models import build

__all__ = ["Progress", "TrainingState", "weights_hash"]


class Progress(Record):
    """How far a run is, over all its parts."""

    schema_version: int = 1
    run_key: str
    step: int = 0
    timed_tokens: int = 0
    timed_seconds: float = 0.0
    """Tokens and seconds of training steps alone; a part's first step, in which kernels are built, is left out."""
    wall_seconds: float = 0.0
    resumed: int = 0
    numerics_keys: tuple[str, ...] = ()
    numerics_labels: tuple[str, ...] = ()


class TrainingState:
    """Model, optimiser, and the losses that nobody has looked at yet.

    ``unread_S2`` holds the loss and the gradient norm of each of the last ``unread`` steps. They stay on the device so
    that a step never waits for them, and go into the checkpoint so that a resumed run reports the same means.
    """

    def __init__(self, spec: RunSpec, numerics: Numerics, most_unread: int) -> None:
        """The state before the first step, its weights drawn from the seed."""
        self.model = build(spec.shape, spec.parametrisation)
        self.model.initialise(spec.seed)
        self.model.to(numerics.device)
        self.optimizer = Optimizer(self.model, spec.optimizer)
        self.unread_S2 = torch.zeros(most_unread, 2, device=numerics.device)
        self.unread = 0
        self._last: Tensor | float = math.nan
        self.progress = Progress(run_key=spec.key)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over a checkpoint of the same run; ``ValueError`` if it is another's."""
        progress = Progress.model_validate_json(saved["progress"])
        if progress.run_key != self.progress.run_key:
            raise ValueError(f"the checkpoint is of run {progress.run_key}, not of {self.progress.run_key}")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.unread = len(saved["unread"])
        self.unread_S2[: self.unread] = saved["unread"]
        self.progress = progress

    def dump(self) -> dict[str, Any]:
        return {
            "progress": self.progress.model_dump_json(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "unread": self.unread_S2[: self.unread].clone(),
        }

    def advance(self, loss: Tensor, norm: Tensor) -> None:
        """Count one step."""
        self.unread_S2[self.unread, 0] = loss
        self.unread_S2[self.unread, 1] = norm
        self.unread += 1
        self._last = loss
        self.note(step=self.progress.step + 1)

    def note(self, **changes: Any) -> None:
        self.progress = self.progress.model_copy(update=changes)

    def first_bad_step(self) -> int | None:
        """The first unread step (from 1) whose loss or gradient norm is not a finite number."""
        bad_S = (~torch.isfinite(self.unread_S2[: self.unread])).any(dim=1).nonzero()
        return self.progress.step - self.unread + 1 + int(bad_S[0]) if len(bad_S) else None

    def read(self) -> tuple[float, float]:
        """Mean loss and mean gradient norm of the unread steps, which are then read."""
        loss, norm = self.unread_S2[: self.unread].double().mean(dim=0).tolist()
        self.unread = 0
        return loss, norm

    @property
    def last_loss(self) -> float:
        """Loss of the last step of this part of the run, read or not."""
        return float(self._last)


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(weight.shape)}{weight.dtype}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
