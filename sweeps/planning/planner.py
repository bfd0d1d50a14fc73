"""One study's plan: made once, frozen before its first run, and grown by rounds and cures."""

from __future__ import annotations

from functools import partial
from typing import Any

import yaml

from scaling.design.cure import cure_design
from scaling.design.design import Design
from scaling.design.law_prior import LawPrior
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.hardware import price_of_device
from scaling.shape import ModelShape
from sweeps.design_settings import InformationDesign
from sweeps.executors.local import usable_cores
from sweeps.ledger.ledger import Ledger
from sweeps.observations import observations
from sweeps.planning.budget import Budget, Cost, largest_within
from sweeps.planning.expectation import expectation, planning_target
from sweeps.planning.layout import check_given, family_of_study, is_given, lay_out, rounds_of
from sweeps.planning.make_plan import jobs_of, make_plan, with_more
from sweeps.planning.plan import Plan, cost_of
from sweeps.progress import Progress
from sweeps.study import Study
from sweeps.workspace import Workspace, cache_folder
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.loop.calibrate import calibrate
from trainer.whole_file import write_whole

__all__ = ["Planner"]

ROUND_BOOTSTRAP = 400
"""Draws of the law between rounds: a dozen of them are planned with."""
NOMINAL_FLOPS_PER_SECOND = 4e10
"""What a core of 2020s CPUs does on shapes of 1e5 parameters; only to guess what is worth calibrating."""


class Planner:
    """Plans one study in one workspace; hold the study's lock (``Workspace.conducting``) while using it."""

    def __init__(self, study: Study, workspace: Workspace, progress: Progress) -> None:
        self.study, self.workspace, self.progress = study, workspace, progress
        workspace.use_ledger(study.execute.ledger)
        self.ledger = Ledger(workspace.ledger_url)
        self.folder = workspace.study_folder(study.name)
        wanted = study.execute.workers
        self.workers = usable_cores() if wanted == "auto" else wanted

    def plan(self) -> Plan:
        """The frozen plan; made, with corpus and calibration, if there is none yet.

        Raises :class:`UserError` if the study file says something else than when its runs were started.
        """
        plan = self._frozen_plan()
        # Files follow the ledger, so they are written again even where it holds the plan already: whoever was killed
        # between the two left none.
        self._write("study.yaml", yaml.safe_dump(self.study.model_dump(mode="json"), sort_keys=False))
        self._write("plan.json", plan.model_dump_json(indent=2))
        self.progress.planned(plan)
        return plan

    def _frozen_plan(self) -> Plan:
        settings = self.study.settings_that_plan()
        frozen = self.ledger.plan_of(self.study.name)
        if frozen is not None:
            before, stored = frozen
            # Studies planned before batches followed the length of a run had one batch for all.
            before["hyperparameters"].setdefault("batch_exponent", 0.0)
            # Designs planned under other limits go on where the study file names none.
            if before["design"]["kind"] == self.study.design.kind == "information":
                before["design"].setdefault("ratio_reach", 14.0)
                unnamed = {"smallest_share", "ratio_reach"} - self.study.design.model_fields_set
                before["design"] |= {name: settings["design"][name] for name in unnamed}
            if before == settings:
                return Plan.model_validate(stored)
            if any(run.started_at is not None for run in self.ledger.runs(self.study.name)):
                raise UserError(
                    f"study {self.study.name!r} already has runs under other settings: "
                    f"{_difference(before, settings)}. Give the changed study another name"
                )
        corpus = self._corpus()
        plan = self._calibrated_plan(corpus)
        self.ledger.freeze(self.study.name, settings, plan.model_dump(mode="json"))
        return plan

    def _corpus(self) -> Corpus:
        wanted = self.study.corpus
        return prepare(
            wanted.source,
            vocabulary=wanted.vocabulary,
            held_out=wanted.held_out,
            cut_bytes=wanted.cut_bytes,
            text_key=wanted.text_key,
            domain_key=wanted.domain_key,
            into=self.workspace.corpora,
            progress=self.progress.step,
        )

    def _calibrated_plan(self, corpus: Corpus) -> Plan:
        study, budget = self.study, self.study.budget
        sequences = study.hyperparameters.global_batch_tokens // study.model.context
        # The shapes to calibrate follow from the budget, and a budget in time from the calibration: the ladder of a
        # nominal design is close enough to measure, since speeds are interpolated between shapes.
        guess = budget.flops or NOMINAL_FLOPS_PER_SECOND * self._nominal_seconds(budget) * self.workers
        nominal = lay_out(study, guess / rounds_of(study))
        seconds = nominal.flops / NOMINAL_FLOPS_PER_SECOND
        calibration = calibrate(
            nominal.shapes, sequences, cache=cache_folder() / "calibration.json", progress=self.progress.step,
            planned_seconds=seconds,
        )  # fmt: skip
        numerics = calibration.choose(seconds)

        takes = partial(calibration.seconds, numerics=numerics)

        def again(flops: float) -> Design:
            return lay_out(study, flops, takes)

        hourly = study.execute.usd_per_hour
        if hourly is None:
            hourly = price_of_device(numerics.processor)

        def cost(design: Design) -> Cost:
            jobs = jobs_of(design.points, study.hyperparameters.cooldown, takes)
            return cost_of(design.flops, jobs, self.workers, numerics, hourly)

        if is_given(study):
            design = nominal
            check_given(design, cost(design).of(budget), budget)
        else:
            design = largest_within(budget.share(rounds_of(study)), again, cost, nominal.flops)
        return make_plan(
            study,
            corpus,
            workers=self.workers,
            design=design,
            calibration=calibration,
            numerics=numerics,
            usd_per_hour=hourly,
            expected=expectation(study, design, family_of_study(study), None if is_given(study) else again),
        )

    def _nominal_seconds(self, budget: Budget) -> float:
        """What a budget in another unit than FLOPs is about, in seconds of the whole machine."""
        hourly = self.study.execute.usd_per_hour or 1.0
        return 3600 * (budget.hours or budget.gpu_hours or (budget.minutes or 0) / 60 or (budget.usd or 0) / hourly)

    def next_round(self, plan: Plan) -> Plan:
        """The plan with another round, laid out by what the runs so far say of the law, and frozen as it is."""
        table = observations(self.ledger, self.study.name, plan)
        self.progress.step(f"laying out round {plan.rounds + 1} of {rounds_of(self.study)}")
        fit = fit_table(
            table[table["role"] == "fit"],
            params_convention="total",
            flops_convention="exact",
            methods=("parametric",),
            bootstrap=ROUND_BOOTSTRAP,
        )
        known = fit.parametric.status == "ok"
        if not known:
            self.progress.say(f"round {plan.rounds + 1} is laid out as the first was: {fit.parametric.reason}")
        design = lay_out(
            self.study,
            plan.sweep_flops / plan.rounds,
            partial(plan.calibration.seconds, numerics=plan.numerics),
            trained=[planned.point for planned in plan.sweep],
            prior=LawPrior.of_fit(fit) if known else None,
        )
        return self._freeze(with_more(plan, self.study, design, rounds=1))

    def cure(self, plan: Plan, fit: Fit, budget_flops: float | None = None) -> Plan:
        """The plan with the runs that a refused fit asks for, or that narrow a wide one most; they are trained by the
        next sweep.

        budget_flops: the most they may cost. What a fit asks for is added once. Raises :class:`UserError` where they
        cost more, or the study's family has no such shapes.
        """
        if fit.key in plan.cured:
            self.progress.say(f"the runs that the fit {fit.key[:12]} asks for are in the plan already")
            return plan
        design = self.study.design
        branches = not isinstance(design, InformationDesign) or design.branches
        wanted = cure_design(
            fit,
            family_of_study(self.study),
            target_flops=planning_target(self.study, plan.sweep_flops),
            noise=design.noise,
            budget=budget_flops,
            cooldown=self.study.hyperparameters.cooldown if branches else None,
            trained=[planned.point for planned in plan.sweep],
        )
        grown = with_more(plan, self.study, _new_seeds(wanted, plan))
        return self._freeze(grown.model_copy(update={"cured": (*plan.cured, fit.key)}))

    def _freeze(self, plan: Plan) -> Plan:
        """Keep a plan that has grown."""
        self.ledger.freeze(self.study.name, self.study.settings_that_plan(), plan.model_dump(mode="json"))
        self._write("plan.json", plan.model_dump_json(indent=2))
        self.progress.planned(plan)
        return plan

    def _write(self, name: str, content: str) -> None:
        write_whole(self.folder / name, content)


def _new_seeds(design: Design, plan: Plan) -> Design:
    """The design's runs with seeds that no run of the plan of the same shape has: none is one that is there, and none
    joins a trunk whose warm-up it would change."""
    used: dict[ModelShape, int] = {}
    for planned in plan.sweep:
        point = planned.point
        used[point.shape] = max(used.get(point.shape, 0), point.replicate + 1)
    points = [
        point.model_copy(update={"replicate": point.replicate + used.get(point.shape, 0)}) for point in design.points
    ]
    return design.model_copy(update={"points": tuple(points)})


def _difference(before: Any, after: Any, field: str = "") -> str:
    """The settings that changed, as ``field: old -> new``."""
    if isinstance(before, dict) and isinstance(after, dict):
        changes = [
            _difference(before.get(key), after.get(key), f"{field}.{key}".lstrip("."))
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
        return ", ".join(changes)
    return f"{field}: {before} -> {after}"
