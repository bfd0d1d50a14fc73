"""The frozen plan: which runs a study trains, what each is expected to take, and the calibration it rests on.

A plan is made once, before the first run, and stored in the ledger; starting again reads it. Only the learning rates
are left open when they are to be probed: they follow from the probe's results by a pure function (``sweeps.probe``).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from scaling.design.isoflop import DesignPoint, IsoflopDesign, budgets_for, hold_out_point, isoflop_design
from scaling.errors import UserError
from scaling.record import Record
from scaling.run_spec import OptimizerSpec, Parametrisation, RunSpec, ScheduleSpec
from scaling.shape import ModelShape
from sweeps.study import Study
from trainer.data.shards import Corpus
from trainer.loop.calibration import Calibration
from trainer.loop.numerics import Numerics

__all__ = ["Plan", "PlannedCorpus", "PlannedPoint", "ProbePoint", "make_plan", "run_spec"]

MAX_HELD_OUT_TOKENS = 65_536
PROBE_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
"""A factor of two apart: the valley is flat enough that a parabola through the best of them finds its bottom."""


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
    """One point of the design and the seconds it should take on one worker."""

    point: DesignPoint
    seconds: float


class ProbePoint(Record):
    """One short run of the learning-rate probe."""

    shape: ModelShape
    tokens: int
    learning_rate: float
    seconds: float


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
    sweep: tuple[PlannedPoint, ...]
    hold_out: PlannedPoint
    replicates: int
    parametrisation: Parametrisation = Parametrisation()

    @property
    def sweep_flops(self) -> float:
        return sum(planned.point.flops for planned in self.sweep)

    @property
    def budgets(self) -> tuple[float, ...]:
        return tuple(sorted({planned.point.budget for planned in self.sweep}))

    @property
    def shapes(self) -> tuple[ModelShape, ...]:
        """The sweep's distinct shapes, the smallest first."""
        distinct = {planned.point.shape: planned.point.params.total for planned in self.sweep}
        return tuple(sorted(distinct, key=distinct.__getitem__))

    def makespan_seconds(self, workers: int | None = None) -> float:
        """Probe, sweep and hold-out one after another, each spread over the workers longest first."""
        count = workers or self.workers
        stages = (
            [probe.seconds for probe in self.probe],
            [planned.seconds for planned in self.sweep],
            [self.hold_out.seconds] * self.replicates,
        )
        return sum(_makespan(stage, count) for stage in stages)

    def facts(self) -> dict[str, Any]:
        """The plan in a few words and numbers, for people and for MLflow's parameters."""
        return {
            "runs": len(self.sweep),
            "probe_runs": len(self.probe),
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


def make_plan(
    study: Study, corpus: Corpus, *, workers: int, design: IsoflopDesign, calibration: Calibration, numerics: Numerics
) -> Plan:
    """The plan for a design that has been calibrated."""
    manifest = corpus.manifest
    hold_out = hold_out_point(design, study.design.hold_out)
    smallest = min(design.points, key=lambda point: point.budget).budget

    def planned(point: DesignPoint) -> PlannedPoint:
        return PlannedPoint(point=point, seconds=calibration.seconds(point.shape, point.tokens, numerics))

    probe = tuple(_probe(study, design, smallest, calibration, numerics))
    return Plan(
        study=study.name,
        workers=workers,
        calibration=calibration,
        numerics=numerics,
        corpus=PlannedCorpus(
            folder=corpus.directory.name,
            source=study.corpus.source,
            vocabulary=manifest.vocabulary,
            data_key=manifest.data_key,
            tokenizer_key=manifest.tokenizer_key,
            train_tokens=manifest.train.tokens,
            held_out_tokens=manifest.held_out.tokens,
            held_out_pieces=manifest.held_out.documents,
            held_out_works=manifest.held_out.works,
            bytes_per_token=manifest.held_out.utf8_bytes / manifest.held_out.tokens,
        ),
        evaluation_tokens=min(
            manifest.held_out.tokens // study.model.context * study.model.context, MAX_HELD_OUT_TOKENS
        ),
        probe=probe,
        sweep=tuple(planned(point) for point in design.points),
        hold_out=planned(hold_out),
        replicates=study.design.replicates,
        parametrisation=study.hyperparameters.parametrisation.of(probe[0].shape if probe else None),
    )


def design_for(study: Study, total_flops: float) -> IsoflopDesign:
    """The study's iso-FLOP lines for ``total_flops`` of fitted runs together."""
    wanted = study.design
    return isoflop_design(
        budgets=budgets_for(total_flops, wanted.budgets, wanted.ratio, wanted.sizes),
        sizes_per_budget=wanted.sizes,
        architecture=study.model.architecture,
        vocabulary=study.corpus.vocabulary,
        context=study.model.context,
        tied=study.model.tied,
        global_batch_tokens=study.hyperparameters.global_batch_tokens,
        tokens_per_param_centre=wanted.tokens_per_param,
        size_step=wanted.size_step,
    )


def design_for_minutes(
    study: Study, minutes: float, workers: int, seconds: Callable[[ModelShape, int], float]
) -> IsoflopDesign:
    """The largest design whose sweep fits into ``minutes`` on ``workers``, by bisection on its FLOPs."""
    low, high = 1e9, 1e24
    for _ in range(60):
        middle = math.sqrt(low * high)
        try:
            design = design_for(study, middle)
        except UserError:
            low = middle  # too small for this vocabulary; more compute reaches larger sizes
            continue
        if _makespan([seconds(p.shape, p.tokens) for p in design.points], workers) > minutes * 60:
            high = middle
        else:
            low = middle
    return design_for(study, low)


def _probe(
    study: Study, design: IsoflopDesign, flops: float, calibration: Calibration, numerics: Numerics
) -> list[ProbePoint]:
    """Each rate at two sizes of the smallest budget's line, its second smallest and its second largest; at the middle
    one alone where the parametrisation carries its rate to all."""
    if study.hyperparameters.learning_rate != "probe":
        return []
    standard = study.hyperparameters.parametrisation.name == "standard"
    line = sorted((p for p in design.points if p.budget == flops), key=lambda p: p.params.total)
    return [
        ProbePoint(
            shape=point.shape,
            tokens=point.tokens,
            learning_rate=rate,
            seconds=calibration.seconds(point.shape, point.tokens, numerics),
        )
        for point in ((line[1], line[-2]) if standard else (line[len(line) // 2],))
        for rate in PROBE_RATES
    ]


def run_spec(
    study: Study,
    plan: Plan,
    shape: ModelShape,
    tokens: int,
    learning_rate: float,
    seed: int,
    branches: Collection[int] = (),
) -> RunSpec:
    """The specification of one run under the study's recipe.

    branches: token counts of the runs that share its trunk. What they share follows from all of them: the warm-up is
    the shortest one's, the weight decay the longest one's.
    """
    settings = study.hyperparameters
    shortest, longest = min((tokens, *branches)), max((tokens, *branches))
    batch = settings.global_batch_tokens
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
        optimizer=OptimizerSpec(learning_rate=rate, weight_decay=settings.weight_decay.of(batch, rate, longest)),
        schedule=ScheduleSpec(
            warmup_tokens=whole_steps(settings.warmup, shortest),
            cooldown_tokens=whole_steps(settings.cooldown, tokens),
        ),
    )


def _makespan(seconds: Sequence[float], workers: int) -> float:
    """Wall-clock seconds of a longest-first schedule."""
    ends = [0.0] * workers
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)
