"""What may be asked: one dimension a hyperparameter, and how Optuna's choice becomes a value of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scaling.laws.power_lines import WeightDecay
from sweeps.tuning.settings import TuneSettings

if TYPE_CHECKING:
    import optuna

__all__ = ["Choice", "Grid", "LogRange", "Space", "Steps", "space_of"]

_DIGITS = 4
"""Of a value that is tried, so that no run's key hangs on the last bit of a logarithm."""


class Choice(Protocol):
    """One dimension. ``name`` is that of the value; ``parameter`` is what Optuna and its dashboard show."""

    @property
    def name(self) -> str: ...

    @property
    def parameter(self) -> str: ...

    def ask(self, trial: optuna.Trial) -> float:
        """The value that the trial is to try."""

    def unasked(self, value: float) -> float | int:
        """What Optuna would have to choose for the nearest value that may be tried."""


@dataclass(frozen=True)
class LogRange:
    """Any value between two, evenly by its logarithm."""

    name: str
    low: float
    high: float

    @property
    def parameter(self) -> str:
        return self.name

    def ask(self, trial: optuna.Trial) -> float:
        return float(f"{trial.suggest_float(self.parameter, self.low, self.high, log=True):.{_DIGITS}g}")

    def unasked(self, value: float) -> float:
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Steps:
    """``unit`` times a power of two."""

    name: str
    unit: int
    low: int
    high: int

    @property
    def parameter(self) -> str:
        return f"log2_{self.name}"

    def ask(self, trial: optuna.Trial) -> float:
        return float(self.unit * 2 ** trial.suggest_int(self.parameter, self.low, self.high))

    def unasked(self, value: float) -> int:
        return min(max(round(math.log2(value / self.unit)), self.low), self.high)


@dataclass(frozen=True)
class Grid:
    """One of given values, ascending: of runs that somebody has trained already."""

    name: str
    values: tuple[float, ...]

    @property
    def parameter(self) -> str:
        return f"nth_{self.name}"

    def ask(self, trial: optuna.Trial) -> float:
        return self.values[trial.suggest_int(self.parameter, 0, len(self.values) - 1)]

    def unasked(self, value: float) -> int:
        return min(range(len(self.values)), key=lambda nth: abs(math.log(self.values[nth] / value)))


@dataclass(frozen=True)
class Space:
    choices: tuple[Choice, ...]

    def ask(self, trial: optuna.Trial) -> dict[str, float]:
        return {choice.name: choice.ask(trial) for choice in self.choices}

    def largest(self, name: str, otherwise: int) -> int:
        """The highest value of one that comes in steps; ``otherwise`` if it is not asked."""
        return next((c.unit * 2**c.high for c in self.choices if isinstance(c, Steps) and c.name == name), otherwise)

    def unasked(self, values: Mapping[str, float]) -> dict[str, float | int]:
        return {
            choice.parameter: choice.unasked(values[choice.name]) for choice in self.choices if choice.name in values
        }


def space_of(tune: TuneSettings, *, context: int, batch_tokens: int, decay: WeightDecay) -> Space:
    """The study's space. Of Adam's betas the values are 1 − beta; of a weight decay that is given by its timescale,
    the timescale."""
    ranges, choices = tune.ranges, list[Choice]()
    for name in sorted(tune.over, key=lambda name: name != "learning_rate"):
        if name == "learning_rate":
            choices.append(LogRange(name, *ranges.learning_rate))
        elif name == "global_batch_tokens":
            low, high = ranges.global_batch_tokens or (batch_tokens / 4, batch_tokens * 4)
            steps = (max(0, math.ceil(math.log2(low / context) - 1e-9)), math.floor(math.log2(high / context) + 1e-9))
            choices.append(Steps(name, context, steps[0], max(steps)))
        elif name == "weight_decay":
            middle = decay.timescale if decay.absolute is None else decay.absolute or 0.1
            choices.append(LogRange(name, *(ranges.weight_decay or ((middle or 0.1) / 10, (middle or 0.1) * 10))))
        elif name == "warmup":
            choices.append(LogRange(name, *ranges.warmup))
        else:
            # Adam averages over 1/(1 − beta) steps: what a beta lacks of one is what has a valley.
            for beta, (low, high) in (("beta1", ranges.beta1), ("beta2", ranges.beta2)):
                choices.append(LogRange(f"1-{beta}", 1 - high, 1 - low))
    return Space(tuple(choices))
