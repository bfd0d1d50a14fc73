"""Asking and telling: the trials of one size and length, in an order that does not hang on who finishes first.

Optuna is asked for trial k when exactly the trials up to k − ``at_once`` have been told, in the order they were asked,
so that the same results always lead to the same trials. Starting again is therefore asking again: the ledger answers
for what was trained already. Pruning decides by what was told before, and what it decides at a token count holds even
if the run has meanwhile come to its end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import TrialState

from scaling.fits.tuned_law import TunedTrial, fit_tuned_law
from sweeps.tuning.space import Space

__all__ = ["Asked", "CellAsking", "Outcome", "first_guess", "sampler_of"]

REDUCTION = 2
RUNG = 0.5
"""Share of a trial's tokens where the better half goes on (ASHA, Li et al. 1810.05934) and the others are pruned. Not
earlier, for before its cooldown a run at a high rate looks worse than it will be; and once, for the law needs the runs
around the best and not the best alone."""
_STARTUP = 8


@dataclass
class Asked:
    """One trial that Optuna asked for; the loss is told in ``Outcome``."""

    number: int
    values: dict[str, float]
    trial: optuna.Trial
    reported: int = 0
    pruned_at: int | None = None
    """Tokens at which it was decided to prune it."""


@dataclass(frozen=True)
class Outcome:
    """How a trial stands. ``curve``: (tokens, held-out loss) so far, ascending; ``loss`` is a finished run's."""

    state: Literal["open", "finished", "pruned", "diverged", "failed"]
    loss: float | None = None
    curve: Sequence[tuple[int, float]] = ()


def sampler_of(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        # Multivariate TPE is marked experimental; it knows that rate and batch belong together.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_STARTUP)
        if kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, multivariate=True, constant_liar=True)


def first_guess(done: Sequence[TunedTrial], params: float, tokens: float) -> dict[str, float] | None:
    """Where to begin at a new size and length: where the law of the others says, or at the best of the last."""
    if not done:
        return None
    law = fit_tuned_law(done)
    if law.status == "ok":
        return law.at(params, tokens)
    last = [t for t in done if (t.params, t.tokens) == (done[-1].params, done[-1].tokens) and t.loss is not None]
    return dict(min(last, key=lambda t: t.loss or 0.0).values) if last else None


class CellAsking:
    """Trials at one size and length of ``tokens``."""

    def __init__(
        self,
        space: Space,
        sampler: str,
        *,
        seed: int,
        trials: int,
        tokens: int,
        worst: float,
        prune: bool = False,
        at_once: int = 1,
        guess: Mapping[str, float] | None = None,
    ) -> None:
        """worst: loss of a model that has learned nothing; a run that diverged is told it."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.trials, self.tokens, self.worst, self.at_once = space, trials, tokens, worst, at_once
        self.prunes = prune
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(1, round(RUNG * tokens)), reduction_factor=REDUCTION
        )
        self.study = optuna.create_study(
            sampler=sampler_of(sampler, seed), pruner=pruner if prune else optuna.pruners.NopPruner()
        )
        if guess:
            self.study.enqueue_trial(space.unasked(guess))
        self.open: list[Asked] = []
        self.told: list[tuple[Asked, Outcome]] = []

    @property
    def done(self) -> bool:
        return len(self.told) >= self.trials

    def advance(self, look: Callable[[Asked], Outcome], train: Callable[[Asked], None]) -> None:
        """Tell what has ended and ask for more until nothing can be told; ``train`` begins what is asked."""
        while not self.done:
            while len(self.open) < self.at_once and len(self.open) + len(self.told) < self.trials:
                asked = self._ask()
                self.open.append(asked)
                train(asked)
            outcome = look(self.open[0])
            if outcome.state == "open":
                return
            self._tell(self.open.pop(0), outcome)

    def to_prune(self, look: Callable[[Asked], Outcome]) -> Asked | None:
        """The trial that is told next, if it should go no further: those after it wait, for it is held against them."""
        first = self.open[0] if self.open else None
        return first if first and self._is_pruned(first, look(first)) else None

    def _ask(self) -> Asked:
        trial = self.study.ask()
        return Asked(trial.number, self.space.ask(trial), trial)

    def _is_pruned(self, asked: Asked, outcome: Outcome) -> bool:
        """Whether the trial is pruned by what is known of it; each point of its curve is held against others' once."""
        if not self.prunes:
            return False
        for tokens, loss in outcome.curve:
            if asked.pruned_at is None and max(asked.reported, RUNG * self.tokens - 1) < tokens < self.tokens:
                asked.trial.report(loss, tokens)
                asked.reported = tokens
                asked.pruned_at = tokens if asked.trial.should_prune() else None
        return asked.pruned_at is not None

    def _tell(self, asked: Asked, outcome: Outcome) -> None:
        if self._is_pruned(asked, outcome) or outcome.state == "pruned":
            outcome = Outcome("pruned", None, outcome.curve)
            self.study.tell(asked.trial, state=TrialState.PRUNED)
        elif outcome.state == "failed":
            self.study.tell(asked.trial, state=TrialState.FAIL)
        else:
            loss = self.worst if outcome.loss is None else min(outcome.loss, self.worst)
            self.study.tell(asked.trial, loss)
        self.told.append((asked, outcome))

    def as_trials(self, params: float) -> list[TunedTrial]:
        """What was told, for the law."""
        return [
            TunedTrial(
                params=params,
                tokens=float(self.tokens),
                values=asked.values,
                loss=outcome.loss if outcome.state == "finished" else None,
                state="failed" if outcome.state == "open" else outcome.state,
            )
            for asked, outcome in self.told
        ]
