"""The stage ``tune`` of a study: trials become runs of the ledger, and what the ledger says of them is told.

The ledger is the truth. Starting again asks Optuna for the same trials, finds their results there and goes on behind
them; Optuna's own storage is written for people (``sweeps.tuning.storage``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from scaling.architectures import total_params
from scaling.fits.tuned_law import TunedTrial
from scaling.quantity import format_count
from scaling.run_spec import RunSpec
from sweeps.ledger.ledger import Ledger, PlannedRun, RunRow
from sweeps.planning.plan import Plan, ProbePoint, run_spec
from sweeps.study import Study
from sweeps.tuning.asking import Asked, CellAsking, Outcome, first_guess
from sweeps.tuning.space import space_of
from sweeps.tuning.storage import TrialStore

__all__ = ["Tuner"]

AHEAD = 2
"""Trials asked for at once, a worker: one that is trained and one that waits, for a worker without work ends."""


@dataclass
class _Cell:
    point: ProbePoint
    asking: CellAsking
    specs: dict[int, RunSpec] = field(default_factory=dict)


class Tuner:
    """Tunes one study; :meth:`advance` is called until :attr:`done`."""

    def __init__(self, study: Study, plan: Plan, ledger: Ledger, store: TrialStore | None, workers: int) -> None:
        settings = study.hyperparameters.tune
        if settings is None:
            raise ValueError("the study tunes nothing")
        self.study, self.plan, self.ledger, self.settings = study, plan, ledger, settings
        self.store, self.workers = store, workers
        self.trials: list[TunedTrial] = []
        self._left = list(plan.tune)
        self._cell: _Cell | None = None

    @property
    def done(self) -> bool:
        return not self._left and self._cell is None

    def advance(self) -> None:
        """Tell what has ended, plan what is asked next, and end the trial that is pruned."""
        while True:
            if self._cell is None:
                if not self._left:
                    return
                self._cell = self._begin(self._left.pop(0))
            cell, rows = self._cell, {row.key: row for row in self.ledger.runs(self.study.name, "tune")}
            cell.asking.advance(self._looking(cell, rows), partial(self._train, cell))
            if self.store:
                self.store.write(self._name(cell.point), cell.asking)
            if not cell.asking.done:
                pruned = cell.asking.to_prune(self._looking(cell, rows))
                if pruned is not None:
                    key, at = cell.specs[pruned.number].key, pruned.pruned_at or 0
                    self.ledger.prune(key, f"pruned at {format_count(at)} tokens")
                # A trial that the ledger knows already, from before or of another study, is told at once.
                fresh = {row.key: row.state for row in self.ledger.runs(self.study.name, "tune")}
                first = cell.asking.open[0]
                if fresh[cell.specs[first.number].key] in ("planned", "running"):
                    return
                continue
            self.trials += cell.asking.as_trials(float(total_params(cell.point.shape)))
            self._cell = None

    def _name(self, point: ProbePoint) -> str:
        return f"{self.study.name} {point.size} tokens"

    def _begin(self, point: ProbePoint) -> _Cell:
        hyper, params = self.study.hyperparameters, float(total_params(point.shape))
        asking = CellAsking(
            space_of(
                self.settings,
                context=self.study.model.context,
                batch_tokens=hyper.global_batch_tokens,
                decay=hyper.weight_decay,
            ),
            self.settings.sampler,
            seed=self.study.seed * 1000 + len(self.plan.tune) - len(self._left),
            trials=self.settings.trials,
            tokens=point.tokens,
            worst=math.log(point.shape.vocabulary),
            prune=self.settings.prune,
            at_once=AHEAD * self.workers,
            guess=first_guess(self.trials, params, float(point.tokens)),
        )
        return _Cell(point, asking)

    def _train(self, cell: _Cell, asked: Asked) -> None:
        point = cell.point
        spec = run_spec(
            self.study, self.plan, point.shape, point.tokens, asked.values["learning_rate"], self.study.seed,
            tuned=asked.values,
        )  # fmt: skip
        cell.specs[asked.number] = spec
        said = ", ".join(f"{name} {value:g}" for name, value in asked.values.items())
        label = f"tune {point.size}: {said}"
        self.ledger.add(self.study.name, [PlannedRun(spec=spec, stage="tune", label=label)])

    def _looking(self, cell: _Cell, rows: dict[str, RunRow]) -> Callable[[Asked], Outcome]:
        def look(asked: Asked) -> Outcome:
            key = cell.specs[asked.number].key
            row = rows.get(key)
            if row is None or row.state == "planned":
                return Outcome("open")
            curve = [(p.tokens, p.value) for p in self.ledger.points(key) if p.name == "held_out_loss"]
            if row.state == "running":
                return Outcome("open", None, curve)
            if row.state == "killed":
                return Outcome("failed", None, curve)
            return Outcome(row.state, row.loss if row.state == "finished" else None, curve)

        return look
