"""Several runs of one shape and length in one process, their gradients taken in one step on stacked parameters.

A small model leaves a processor idle between its many small products; K of them side by side make fewer, larger ones.
Each run keeps its own weights (views into the stack), optimizer, data, curve and checkpoints, and ends as it would have
alone, within float tolerance: only the forward and the backward pass are shared, by ``torch.func``. Whether that is
faster depends on shape and machine, so ask :class:`trainer.loop.calibration.Calibration`.

Shapes: K runs, B sequences a step, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from scaling.shape import ModelShape
from trainer.data.run_data import RunData
from trainer.data.shards import Corpus
from trainer.loop.checkpoint import CheckpointFolder
from trainer.loop.meter import StepClock
from trainer.loop.numerics import AUTOCAST, Numerics
from trainer.loop.resources import reset_peak_memory
from trainer.loop.result import RunResult
from trainer.loop.run import Diverged, Run
from trainer.loop.train import applied
from trainer.models.model import LanguageModel
from trainer.tracker import Tracker

__all__ = ["StackedModels", "can_train_together", "stackable", "train_together"]

_SHARED = ("shape", "parametrisation", "tokens", "global_batch_tokens", "data_key", "tokenizer_key", "held_out_tokens")


def can_train_together(one: RunSpec, other: RunSpec) -> bool:
    """Whether two runs differ in seed, optimizer, schedule and policy alone, and can be kept in step."""
    # A run that goes back behind a spike falls out of step.
    in_step = all(spec.anneal is None and spec.spikes.action != "rewind" for spec in (one, other))
    return in_step and stackable(one.shape) and all(getattr(one, field) == getattr(other, field) for field in _SHARED)


def stackable(shape: ModelShape) -> bool:
    """Whether the architecture's operations can be stacked; fused recurrent kernels can't."""
    return shape.architecture in ("llama", "gpt2", "mamba2")


class StackedModels:
    """K models whose parameters become views into one stack."""

    def __init__(self, models: Sequence[LanguageModel], numerics: Numerics) -> None:
        self._model, self._numerics = models[0], numerics
        self._each = [dict(model.named_parameters()) for model in models]
        self._stack = {name: torch.stack([own[name].detach() for own in self._each]) for name in self._each[0]}
        for k, own in enumerate(self._each):
            for name, parameter in own.items():
                parameter.data = self._stack[name][k]
        self._gradients = vmap(grad_and_value(self._loss))

    def _loss(self, parameters: dict[str, Tensor], x_BT: Tensor, y_BT: Tensor) -> Tensor:
        logits_BTV = functional_call(self._model, parameters, (x_BT,))
        loss: Tensor = F.cross_entropy(logits_BTV.float().flatten(0, 1), y_BT.flatten())
        return loss

    def accumulate(self, x_KBT: Tensor, y_KBT: Tensor) -> Tensor:
        """Give every model the gradient of its batch's mean loss; returns the losses (K,)."""
        precision, device = self._numerics.precision, self._numerics.device
        autocast = torch.autocast(device, AUTOCAST[precision], enabled=precision != "fp32")
        # The fused kernels can't be stacked on a CPU, and would be called model by model.
        with sdpa_kernel(SDPBackend.MATH), autocast:
            gradients, loss_K = self._gradients(self._stack, x_KBT, y_KBT)
        for k, own in enumerate(self._each):
            for name, parameter in own.items():
                parameter.grad = gradients[name][k]
        losses: Tensor = loss_K.detach()
        return losses


def train_together(
    specs: Sequence[RunSpec],
    corpus: Corpus,
    numerics: Numerics,
    *,
    directories: Sequence[Path],
    trackers: Sequence[Tracker],
    should_stop: Callable[[], bool],
    checkpoint_seconds: float = 20.0,
    evaluations: int = 12,
    peak_flops_per_second: float | None = None,
    should_leave: Callable[[RunSpec], bool] = lambda _: False,
    ended: Callable[[RunResult], None] = lambda _: None,
) -> list[RunResult]:
    """Train ``specs`` in step with each other; as :func:`trainer.loop.train.train` for each of them.

    ``numerics.together`` must be their number; seconds of a step, and joules, are shared out evenly. A run that
    diverges, or is saved and given up at a step's boundary since it ``should_leave``, leaves the others as they are, to
    the bit. ``ended`` is told of each run's end when it comes, and of the others' at theirs. Interrupted runs go on
    from the last step that all of them have saved.

    Raises :class:`UserError` if they differ in more than seed, optimizer, schedule and policies, or can't be stacked.
    """
    _check(specs, numerics)
    numerics.check_available()
    with applied(numerics):
        reset_peak_memory(numerics.device)
        folders = [CheckpointFolder(*each) for each in zip(directories, (t.note for t in trackers), strict=True)]
        # Where the last common checkpoint is damaged they begin anew, which is never wrong.
        for step in (min(folder.newest_step() for folder in folders), 0):
            runs = [
                Run(spec, RunData(spec, corpus), numerics, folder, tracker, evaluations, ())
                for spec, folder, tracker in zip(specs, folders, trackers, strict=True)
            ]
            for run in runs:
                run.resume(None, at_most=step)
            if len({run.state.progress.step for run in runs}) == 1:
                break
        clock = StepClock(numerics.device)
        for run in runs:
            run.measure(clock, peak_flops_per_second)
        return _Group(runs, numerics, clock, ended).train(should_stop, should_leave, checkpoint_seconds)


def _check(specs: Sequence[RunSpec], numerics: Numerics) -> None:
    if numerics.together != len(specs):
        raise UserError(f"numerics.together is {numerics.together} for {len(specs)} runs: set it to their number")
    for spec in specs[1:]:
        if not can_train_together(specs[0], spec):
            raise UserError(
                f"runs {specs[0].key[:8]} and {spec.key[:8]} can't be trained together: they differ in more than seed, "
                "optimizer and schedule, or their architecture can't be stacked; train them one by one"
            )
    own = numerics.compiled or numerics.kernels or numerics.recompute
    if own or numerics.precision == "fp16" or numerics.micro_batch_sequences:
        raise UserError(f"numerics {numerics.label} can't be stacked: use fp32 or bf16, eager, in whole batches")


class _Group:
    """Runs in one stack; one that has ended keeps its place in it, for what the others compute depends on their number
    in the last digits."""

    def __init__(
        self, runs: Sequence[Run], numerics: Numerics, clock: StepClock, ended: Callable[[RunResult], None]
    ) -> None:
        self.runs, self.clock, self._ended = runs, clock, ended
        self.stacked = StackedModels([run.state.model for run in runs], numerics)
        self.results: dict[str, RunResult] = {}
        for run in runs:
            run.state.optimizer.follow_parameters()

    @property
    def going(self) -> list[Run]:
        return [run for run in self.runs if run.spec.key not in self.results]

    def train(
        self, should_stop: Callable[[], bool], should_leave: Callable[[RunSpec], bool], checkpoint_seconds: float
    ) -> list[RunResult]:
        step = self.runs[0].state.progress.step
        stopped = False
        while step < self.runs[0].spec.steps and not (stopped := should_stop()):
            for run in self.going:
                if should_leave(run.spec):
                    self._unless_diverged(run, run.save)
                    self._end(run, "interrupted")
            if not self.going:
                break
            self.clock.start()
            x_KBT, y_KBT = (torch.stack(each) for each in zip(*(run.next_batch() for run in self.runs), strict=True))
            loss_K = self.stacked.accumulate(x_KBT, y_KBT)
            for run, loss in zip(self.runs, loss_K, strict=True):
                self._unless_diverged(run, partial(run.finish_step, loss))
            self.clock.count_step()
            for run in self.runs:
                self._unless_diverged(run, partial(run.between_steps, checkpoint_seconds))
            step += 1
        for run in self.runs:
            self._unless_diverged(run, run.save)
        for run in self.runs:
            self._end(run, "interrupted" if stopped else "finished")
        return [self.results[run.spec.key] for run in self.runs]

    def _unless_diverged(self, run: Run, action: Callable[[], None]) -> None:
        """A run that diverges stays as it was at that step; the others go on."""
        if run.spec.key in self.results:
            return
        try:
            action()
        except Diverged as error:
            run.tracker.note(f"diverged: {error}")
            self._end(run, "diverged")

    def _end(self, run: Run, status: str) -> None:
        if run.spec.key not in self.results:
            self.results[run.spec.key] = result = run.result(status)
            self._ended(result)
