"""The frozen plan: which runs a study trains, what each is expected to take, and the calibration it rests on.

A plan is made once, before the first run, and stored in the ledger; starting again reads it. Only the learning rates
are left open when they are to be probed: they follow from the probe's results by a pure function (``sweeps.probe``).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import Field

from scaling.architectures import total_params
from scaling.batch_rule import BatchRule, whole_sequences
from scaling.design.design import DesignKind, DesignPoint
from scaling.laws.power_lines import WeightDecay
from scaling.quantity import format_count
from scaling.record import Record
from scaling.run_spec import OptimizerSpec, Parametrisation, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from sweeps.planning.budget import Cost
from sweeps.planning.expectation import Expectation
from sweeps.planning.makespan import Job, makespan_seconds
from sweeps.study import Study
from trainer.loop.calibration import Calibration
from trainer.loop.numerics import Numerics

__all__ = ["Plan", "PlannedCorpus", "PlannedPoint", "ProbePoint", "batch_rule", "cost_of", "middle_length", "run_spec"]


class PlannedCorpus(Record):
    folder: str
    source: str
    vocabulary: int
    data_key: str
    tokenizer_key: str
    train_tokens: int
    held_out_tokens: int
    held_out_pieces: int
    held_out_works: int
    bytes_per_token: float


class PlannedPoint(Record):
    """One point of the design, and the seconds that its own training should take one worker: of a branch, all that
    comes after its trunk.

    memory_bytes: an estimate of what training takes, without the process itself. carrier: position in the sweep of the
    run that carries this one's trunk; None for those that carry it or stand alone. carrier_seconds: how long it trains
    until this one can start.
    """

    point: DesignPoint
    seconds: float
    memory_bytes: int
    carrier: int | None = None
    carrier_seconds: float = 0.0

    @property
    def job(self) -> Job:
        return Job(self.seconds, self.carrier, self.carrier_seconds)


class ProbePoint(Record):
    """One short run of the learning-rate probe."""

    shape: ModelShape
    tokens: int
    learning_rate: float
    seconds: float

    @property
    def size(self) -> str:
        """``31k on 1.1M``: parameters and tokens, as runs are labelled."""
        return f"{format_count(total_params(self.shape))} on {format_count(self.tokens)}"


class Plan(Record):
    """Everything that is decided before the first run."""

    schema_version: int = 1
    study: str
    corpus: PlannedCorpus
    numerics: Numerics
    calibration: Calibration
    workers: int
    evaluation_tokens: int
    probe: tuple[ProbePoint, ...]
    tune: tuple[ProbePoint, ...] = ()
    """Sizes and lengths at which hyperparameters are tuned, each with the seconds of one trial."""
    tune_trials: int = 0
    design: DesignKind = "isoflop"
    sweep: tuple[PlannedPoint, ...]
    hold_out: PlannedPoint
    replicates: int
    parametrisation: Parametrisation = Parametrisation()
    batch_at_tokens: float = Field(default=1.0, description="length of a run that has exactly the study's batch")
    usd_per_hour: float | None = None
    expected: Expectation | None = None
    rounds: int = Field(default=1, description="laid out so far")
    cured: tuple[str, ...] = Field(default=(), description="keys of the fits whose cures are in the sweep")

    @property
    def sweep_flops(self) -> float:
        return sum(planned.point.cost_flops for planned in self.sweep)

    @property
    def cost(self) -> Cost:
        """Of the fitted runs."""
        jobs = [planned.job for planned in self.sweep]
        return cost_of(self.sweep_flops, jobs, self.workers, self.numerics, self.usd_per_hour)

    @property
    def budgets(self) -> tuple[float, ...]:
        """Of the iso-FLOP lines; a design of another kind has none."""
        return tuple(sorted({p.point.budget for p in self.sweep if p.point.budget is not None}))

    @property
    def shapes(self) -> tuple[ModelShape, ...]:
        """The sweep's distinct shapes, the smallest first."""
        distinct = {planned.point.shape: planned.point.params.total for planned in self.sweep}
        return tuple(sorted(distinct, key=distinct.__getitem__))

    def makespan_seconds(self, workers: int | None = None) -> float:
        """Probe or tuning, sweep and hold-out one after another, each spread over the workers longest first."""
        return sum(self.stage_seconds(stage, workers) for stage in ("probe", "tune", "sweep", "hold-out"))

    def stage_seconds(self, stage: str, workers: int | None = None) -> float:
        """What one stage takes; tuning goes from one size and length to the next."""
        jobs = {
            "probe": [[Job(probe.seconds) for probe in self.probe]],
            "tune": [[Job(cell.seconds)] * self.tune_trials for cell in self.tune],
            "sweep": [[planned.job for planned in self.sweep]],
            "hold-out": [[Job(self.hold_out.seconds)] * self.replicates],
        }
        return sum(makespan_seconds(each, workers or self.workers) for each in jobs[stage])

    def facts(self) -> dict[str, Any]:
        """The plan in a few words and numbers, for people and for MLflow's parameters."""
        return {
            "runs": len(self.sweep),
            "probe_runs": len(self.probe),
            "tune_trials": len(self.tune) * self.tune_trials,
            "hold_out_runs": self.replicates,
            "sizes": len(self.shapes),
            "budgets": ", ".join(f"{budget:.3g}" for budget in self.budgets),
            "sweep_flops": f"{self.sweep_flops:.4g}",
            "hold_out_flops": f"{self.hold_out.point.flops:.4g}",
            "train_tokens_available": self.corpus.train_tokens,
            "evaluation_tokens": self.evaluation_tokens,
            "data_key": self.corpus.data_key,
            "tokenizer_key": self.corpus.tokenizer_key,
            "numerics": self.numerics.label,
            "processor": self.numerics.processor,
            "workers": self.workers,
        }


def cost_of(
    flops: float, jobs: Sequence[Job], workers: int, numerics: Numerics, usd_per_hour: float | None = None
) -> Cost:
    """What fitted runs of ``flops`` together take on ``workers`` of this machine, one a GPU where it has some."""
    return Cost(
        flops=flops,
        makespan_seconds=makespan_seconds(jobs, workers),
        gpu_seconds=sum(job.seconds for job in jobs) if numerics.device == "cuda" else None,
        usd_per_hour=usd_per_hour,
    )


def middle_length(tokens: Collection[int]) -> float:
    """Of the branches of a trunk, or of a design's runs: what they share is chosen for it."""
    return math.exp(statistics.fmean(map(math.log, tokens)))


def batch_rule(study: Study, at_tokens: float) -> BatchRule:
    """How the batch of the study's runs follows their length; ``at_tokens`` is the plan's ``batch_at_tokens``."""
    settings = study.hyperparameters
    return BatchRule(batch_tokens=settings.global_batch_tokens, at_tokens=at_tokens, exponent=settings.batch_exponent)


def run_spec(
    study: Study,
    plan: Plan,
    shape: ModelShape,
    tokens: int,
    learning_rate: float,
    seed: int,
    branches: Collection[int] = (),
    tuned: Mapping[str, float] | None = None,
) -> RunSpec:
    """The specification of one run under the study's recipe.

    branches: token counts of the runs that share its trunk. What they share follows from all of them: the warm-up is
    the shortest one's, the weight decay the longest one's, the batch that of their middle length. tuned: what replaces
    the recipe's values, by the names of ``sweeps.tuning.space``. The run is as long as whole steps of its batch allow.
    """
    settings = study.hyperparameters
    shortest, longest = min((tokens, *branches)), max((tokens, *branches))
    tuned = tuned or {}
    if "global_batch_tokens" in tuned:
        batch = whole_sequences(tuned["global_batch_tokens"], shape.context)
    else:
        length = middle_length(branches or [tokens])
        batch = batch_rule(study, plan.batch_at_tokens).trained(length, shape.context)
    tokens, longest = (max(1, round(each / batch)) * batch for each in (tokens, longest))
    # Rounded so that the key does not hang on the last bit of a fitted number.
    rate = float(f"{learning_rate:.6g}")

    def whole_steps(share: float, tokens: int) -> int:
        return round(share * tokens / batch) * batch

    return RunSpec(
        shape=shape,
        parametrisation=plan.parametrisation,
        tokens=tokens,
        global_batch_tokens=batch,
        seed=seed,
        data_key=plan.corpus.data_key,
        tokenizer_key=plan.corpus.tokenizer_key,
        held_out_tokens=plan.evaluation_tokens,
        optimizer=OptimizerSpec(
            learning_rate=rate,
            weight_decay=_decay(settings.weight_decay, tuned).of(batch, rate, longest),
            **{beta: round(1 - tuned[f"1-{beta}"], 6) for beta in ("beta1", "beta2") if f"1-{beta}" in tuned},
        ),
        schedule=ScheduleSpec(
            warmup_tokens=whole_steps(tuned.get("warmup", settings.warmup), shortest),
            cooldown_tokens=whole_steps(settings.cooldown, tokens),
        ),
    )


def _decay(given: WeightDecay, tuned: Mapping[str, float]) -> WeightDecay:
    """The recipe's decay, or the tuned one, which is of the same kind."""
    if "weight_decay" not in tuned:
        return given
    value = tuned["weight_decay"]
    return WeightDecay(absolute=value) if given.timescale is None else WeightDecay(timescale=value)
