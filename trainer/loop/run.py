"""One run between its steps: what is reported, looked at, saved and taken back; ``trainer.loop.train`` starts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling import architectures
from scaling.run_spec import RunSpec
from trainer.data.run_data import RunData
from trainer.distributed.world import ALONE, World
from trainer.evaluate.held_out import HeldOutSet
from trainer.loop.checkpoint import CheckpointFolder
from trainer.loop.looks import evaluation_steps, report_steps
from trainer.loop.meter import RunMeter, StepClock
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.schedule import learning_rate
from trainer.loop.state import TrainingState, weights_hash
from trainer.system_facts import system_facts
from trainer.tracker import Tracker

__all__ = ["Diverged", "Run"]

PROGRESS_SECONDS = 0.5
MOST_REWINDS = 8
EVALUATION_SHARE = 0.04
"""What evaluations on the way may take of a run's compute: a small run looks at a part of the held-out set."""


class Diverged(Exception):
    """A loss or a gradient norm is not a finite number."""


class Run:
    """One run between its steps; :func:`train` takes it to its end, ``trainer.loop.together`` several in step."""

    def __init__(
        self,
        spec: RunSpec,
        data: RunData,
        numerics: Numerics,
        checkpoints: CheckpointFolder,
        tracker: Tracker,
        evaluations: int,
        branches: Collection[int],
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.spec, self.numerics, self.checkpoints, self.tracker = spec, numerics, checkpoints, tracker
        self.data, self.branches = data, frozenset(branches)
        self.held_out = HeldOutSet(data.corpus, spec.held_out_tokens, spec.shape.context)
        self.reports = set(report_steps(spec.steps, {spec.branch_step, *self.branches}))
        self.evaluations = set(evaluation_steps(spec.steps, evaluations))
        self.looks = self.reports | self.evaluations | self.branches
        # A forward pass is a third of a step's compute.
        affordable = 3 * EVALUATION_SHARE * spec.tokens / max(1, len(self.evaluations)) / spec.shape.context
        self.quick_windows = self.held_out.subset(int(affordable))
        self.flops_per_token = architectures.get(spec.shape.architecture).training_flops_per_token(spec.shape)

        torch.manual_seed(spec.seed)
        self.state = TrainingState(spec, numerics, world)
        self.started = self.last_saved = self.last_progress = time.monotonic()

    def measure(self, clock: StepClock, peak_flops_per_second: float | None) -> None:
        """Begin to measure this part of the run, whose steps ``clock`` times."""
        self.meter = RunMeter(
            self.state.progress,
            self.numerics,
            clock,
            started=self.started,
            tokens_per_step=self.spec.global_batch_tokens,
            flops_per_token=self.flops_per_token,
            peak_flops_per_second=peak_flops_per_second,
        )

    def train(self, should_stop: Callable[[], bool], checkpoint_seconds: float) -> str:
        """Steps, with reports, evaluations and checkpoints between them; returns how it ended."""
        clock = self.meter.clock
        try:
            while self.state.progress.step < self.spec.steps:
                if self.world.any(should_stop()):
                    self.save()
                    return "interrupted"
                clock.start()
                x_BT, y_BT = self.next_batch()
                self.finish_step(self.state.step.accumulate(x_BT, y_BT))
                clock.count_step()
                self.between_steps(checkpoint_seconds)
            self.save()
        except Diverged as error:
            self.tracker.note(f"diverged: {error}")
            return "diverged"
        return "finished"

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) of the step to take; of several processes, this one's rows of them."""
        progress, policy = self.state.progress, self.spec.spikes
        if policy.action == "rewind" and progress.step % policy.window == 0:
            self.state.take_snapshot()
        batch = self.data.batch(progress.step, passed_over=progress.passed_over)
        rows = self.world.rows(self.spec.sequences_per_step)
        x_BT, y_BT = (torch.from_numpy(a[rows]) for a in batch)
        if self.numerics.device == "cuda":
            # From pinned memory the copy queues behind the steps under way, and the host doesn't wait for it.
            x_BT, y_BT = (a.pin_memory().to("cuda", non_blocking=True) for a in (x_BT, y_BT))
        return x_BT, y_BT

    def finish_step(self, loss: Tensor) -> None:
        """Change the weights, whose gradients are there, and count the step; under the policy to rewind, perhaps back
        behind the last snapshot."""
        state = self.state
        if state.step.micro_batch_sequences != self.numerics.micro_batch_sequences:
            self._record_smaller_micro_batch()
        norm, spike = state.step.update(loss, learning_rate(self.spec, state.progress.step))
        state.advance(loss, norm, spike)
        if self.spec.spikes.action == "rewind" and bool(spike):
            self._rewind()

    def between_steps(self, checkpoint_seconds: float) -> None:
        """Reports, evaluations and checkpoints that are due after the last step; the clock stands still for them."""
        step, now = self.state.progress.step, time.monotonic()
        # Of several processes the first one's clock decides for all.
        save = self.world.any(self.world.rank == 0 and now - self.last_saved >= checkpoint_seconds)
        show = now - self.last_progress >= PROGRESS_SECONDS
        if not (save or show or step in self.looks):
            return
        self.meter.stop()
        if step in self.reports:
            self._report(step)
        if step in self.evaluations:
            self._evaluate(step)
        if step in self.branches:
            self.checkpoints.save_for_branches(step, self.state.dump())
        if save:
            self.save()
        if show:
            self._show_progress()

    def _rewind(self) -> None:
        self._check()
        spike = self.state.progress.step
        if self.state.progress.rewinds >= MOST_REWINDS:
            raise Diverged(f"step {spike} is a spike, after {MOST_REWINDS} rewinds")
        self.state.rewind()
        self.tracker.note(f"spike at step {spike}: back to step {self.state.progress.step} and on with later data")

    def result(self, status: str) -> RunResult:
        """Measure the weights if the run is finished, and say how it ended."""
        progress, measured = self.state.progress, {}
        if status == "finished":
            loss = self.held_out.loss_of(self._token_nats(np.arange(len(self.held_out))))
            if np.isfinite(loss.loss_nats):
                self._metrics(progress.step, held_out_loss=loss.loss_nats, bits_per_byte=loss.bits_per_byte)
                self.checkpoints.keep(1)
                measured = {
                    "loss_nats": loss.loss_nats,
                    "loss_sem": loss.loss_sem,
                    "bits_per_byte": loss.bits_per_byte,
                    "held_out_tokens": loss.tokens,
                    "domains": loss.domains,
                    "weights_hash": weights_hash(self.state.model),
                }
            else:
                self.tracker.note(f"diverged: the held-out loss after step {progress.step} is {loss.loss_nats}")
                status = "diverged"
        return RunResult.model_validate(
            {
                "status": status,
                "run_key": self.spec.key,
                "numerics": ", then ".join(progress.numerics_labels),
                "steps": progress.step,
                "tokens": progress.step * self.spec.global_batch_tokens,
                "resumed": progress.resumed,
                "first_step": progress.first_step,
                "spikes": progress.spikes,
                "rewinds": progress.rewinds,
                "system": system_facts(),
                **self.meter.result(),
                **measured,
            }
        )

    # Between steps

    def resume(self, trunk: CheckpointFolder | None, at_most: int | None = None) -> None:
        """Go on from the newest checkpoint, of step ``at_most`` or before, or else from the trunk's; a change of
        numerics is said and kept."""
        state, numerics = self.state, self.numerics
        saved = self.checkpoints.newest(numerics.device, at_most, state.form)
        if saved is not None:
            state.restore(saved)
            state.note(resumed=state.progress.resumed + 1)
            self.tracker.note(f"resumed at step {state.progress.step} of {self.spec.steps}")
        elif trunk is not None:
            self._leave(trunk)
        found_to_fit = state.progress.micro_batch_sequences
        if found_to_fit is not None:
            state.step.micro_batch_sequences = min(found_to_fit, state.step.micro_batch_sequences or found_to_fit)
        self._record_numerics()

    def _record_numerics(self) -> None:
        """Keep under which numerics the run goes on; a change in the middle is said."""
        rows, before = self.state.step.micro_batch_sequences, self.state.progress
        self.numerics = numerics = self.numerics.model_copy(update={"micro_batch_sequences": rows})
        if before.numerics_keys and before.numerics_keys[-1] == numerics.key:
            return
        # What ran until the first step only found out what fits.
        ran = len(before.numerics_keys) if before.step else 0
        if ran:
            self.tracker.note(
                f"warning: numerics changed at step {before.step} from {before.numerics_labels[-1]} to "
                f"{numerics.label} on {numerics.processor}: this run can't be repeated to the bit"
            )
        self.state.note(
            numerics_keys=(*before.numerics_keys[:ran], numerics.key),
            numerics_labels=(*before.numerics_labels[:ran], numerics.label),
        )

    def _record_smaller_micro_batch(self) -> None:
        rows = self.state.step.micro_batch_sequences
        self.tracker.note(f"out of memory: on with micro-batches of {rows} sequences, the same batch")
        self.state.note(micro_batch_sequences=rows)
        self._record_numerics()

    def _leave(self, trunk: CheckpointFolder) -> None:
        """Start where the run leaves its trunk, or at the last step before that of which a checkpoint was kept."""
        wanted = self.spec.branch_step
        saved = trunk.for_branch(wanted, self.numerics.device, self.state.form)
        if saved is None:
            self.tracker.note(f"warning: no checkpoint of the trunk up to step {wanted}: trained from the start")
            return
        self.state.branch_from(saved)
        found = self.state.progress.step
        if found == wanted:
            self.tracker.note(f"left its trunk at step {found} of {self.spec.steps}")
        else:
            self.tracker.note(f"warning: the trunk's checkpoint of step {wanted} is missing: left it at step {found}")

    def _check(self) -> None:
        bad_step = self.state.first_bad_step()
        if bad_step is not None:
            self.state.note(step=bad_step)
            raise Diverged(f"the loss or the gradient of step {bad_step} is not a finite number")

    def _report(self, step: int) -> None:
        self._check()
        seen = len(self.state.progress.spikes)
        means = self.state.read()
        self._metrics(step, **means, learning_rate=learning_rate(self.spec, step - 1))
        for spike in self.state.progress.spikes[seen:]:
            done = "left out" if self.spec.spikes.action == "skip" else "taken"
            self.tracker.note(f"spike at step {spike}: its update was {done}")

    def _evaluate(self, step: int) -> None:
        nats_WT = self._token_nats(self.quick_windows)
        if np.isfinite(loss := float(nats_WT.mean(dtype=np.float64))):
            bits_per_byte = self.held_out.bits_per_byte(nats_WT, self.quick_windows)
            self._metrics(step, held_out_loss=loss, bits_per_byte=bits_per_byte, **self.meter.lap())

    def _token_nats(self, windows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Held-out nats (W, T); of several processes each looks at its part of the windows, and knows all."""
        mine, precision = self.world.share(windows), self.numerics.precision
        return self.world.gather(self.held_out.token_nats(self.state.model, mine, precision=precision), len(windows))

    def _metrics(self, step: int, **values: float) -> None:
        tokens = step * self.spec.global_batch_tokens
        self.tracker.metrics(step, tokens, float(tokens) * self.flops_per_token, values)

    def save(self) -> None:
        self._check()
        self.tracker.flush()
        self.state.note(**self.meter.totals())
        self.checkpoints.save(self.state.progress.step, self.state.dump())
        self.last_saved = time.monotonic()

    def _show_progress(self) -> None:
        self.last_progress = time.monotonic()
        step, rate = self.state.progress.step, self.meter.tokens_per_second
        self.tracker.progress(step, step * self.spec.global_batch_tokens, rate, self.state.last_loss)
