"""A whole study, stage by stage: corpus, plan, probe, sweep, fit, registered forecast, hold-out, score, recommendation.

Each stage first looks for its result, so that conducting again continues where it stopped and changes nothing that is
done. What a person wants to read is written to the study's folder; the ledger stays the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.design.design import DesignPoint
from scaling.design.trunks import branch_tokens
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.fits.tuned_law import TunedLaw, fit_tuned_law
from scaling.forecast import Forecast, Outcome
from scaling.hyperparameters import LearningRateLaw, fixed_rate, tuned_rate
from scaling.loss_band import on_the_way
from scaling.prediction import predict, score
from scaling.quantity import format_count
from scaling.recommend import recommend
from scaling.recommendation import Recommendation
from scaling.run_spec import RunSpec
from scaling.study_context import StudyContext
from sweeps.engine import run_stage
from sweeps.executors.choose import executor_for
from sweeps.ledger.ledger import ENDED, PlannedRun, RunRow, Stage
from sweeps.ledger.registry import register_forecast
from sweeps.observations import curves, observations
from sweeps.planning.layout import rounds_of
from sweeps.planning.plan import Plan, batch_rule, middle_length, run_spec
from sweeps.planning.planner import Planner
from sweeps.probe import probe_runs, probed_law
from sweeps.study import Study

__all__ = ["Conductor", "StudyResult"]


@dataclass(frozen=True)
class StudyResult:
    """Everything a study came to."""

    study: Study
    plan: Plan
    observations: pd.DataFrame
    curves: pd.DataFrame
    learning_rates: LearningRateLaw
    fit: Fit
    forecast: Forecast | None
    outcome: Outcome | None
    recommendation: Recommendation | None
    """None where the data supports no allocation; the fit's diagnostics say why and what would cure it."""
    failed: tuple[RunRow, ...]
    folder: Path

    def summary(self) -> dict[str, Any]:
        """The answers as one JSON object: what ``scaling run --json`` prints."""
        return {
            "study": self.study.name,
            "runs": len(self.observations),
            "failed": [{"run_key": run.key, "label": run.label, "error": run.error} for run in self.failed],
            "fit": self.fit.answer(),
            "forecast": self.forecast and self.forecast.model_dump(mode="json"),
            "outcome": self.outcome and self.outcome.model_dump(mode="json"),
            "recommendation": self.recommendation and self.recommendation.model_dump(mode="json"),
            "folder": str(self.folder),
        }


class Conductor(Planner):
    """Conducts one study in one workspace, from its plan to its answers; hold the study's lock
    (``Workspace.conducting``) while using it."""

    # Runs

    def sweep(self, plan: Plan) -> LearningRateLaw:
        """Probe the learning rates, then train the design's runs, round by round; what is trained already is left
        alone. After a study of several rounds its plan holds more runs than ``plan``: ask for it again."""
        rates = self.learning_rates(plan)
        while True:
            self.ledger.add(self.study.name, self.sweep_runs(plan, rates))
            self._train(plan, "sweep")
            if plan.rounds >= rounds_of(self.study):
                return rates
            plan = self.next_round(plan)

    def sweep_runs(self, plan: Plan, rates: LearningRateLaw) -> list[PlannedRun]:
        """The design's runs in its order; branches name the run that carries their trunk."""
        points = [planned.point for planned in plan.sweep]
        branches = branch_tokens(points)
        specs = [
            self._spec(plan, rates, point, point.replicate, branches.get(at, ())) for at, point in enumerate(points)
        ]
        return [
            PlannedRun(
                spec=spec,
                stage="sweep",
                label=_label(planned.point),
                budget_flops=planned.point.budget,
                carrier=None if planned.carrier is None else specs[planned.carrier].key,
            )
            for spec, planned in zip(specs, plan.sweep, strict=True)
        ]

    def _spec(
        self, plan: Plan, rates: LearningRateLaw, point: DesignPoint, replicate: int, branches: Collection[int] = ()
    ) -> RunSpec:
        """The specification of one point; what the branches of a trunk share is for the middle of their lengths."""
        params = point.params.total
        length = middle_length(branches or [point.tokens])
        return run_spec(
            self.study,
            plan,
            point.shape,
            point.tokens,
            rates.rate(params, length),
            self.study.seed + replicate,
            branches=branches,
            tuned=self._tuned(rates, params, length),
        )

    def learning_rates(self, plan: Plan) -> LearningRateLaw:
        """The study's law of learning rates: given as a number, tuned, or probed."""
        given = self.study.hyperparameters.learning_rate
        if self.study.hyperparameters.tune:
            return tuned_rate(self.tune(plan))
        if given != "probe":
            return fixed_rate(given, plan.parametrisation)
        self.ledger.add(self.study.name, probe_runs(self.study, plan))
        self._train(plan, "probe")
        law = probed_law(self.ledger, self.study.name, plan.parametrisation)
        self._write("learning_rates.json", law.model_dump_json(indent=2))
        return law

    def tune(self, plan: Plan) -> TunedLaw:
        """Tune the hyperparameters at small sizes, as far as it is not done; :class:`UserError` without a law."""
        # Optuna takes a moment to load, and few studies tune.
        from sweeps.tuning.stage import Tuner
        from sweeps.tuning.storage import TrialStore

        settings = self.study.hyperparameters.tune
        assert settings is not None
        tuner = Tuner(self.study, plan, self.ledger, TrialStore(self.folder / "optuna", settings.storage), self.workers)
        tuner.advance()
        if not tuner.done:
            self._run_stage(plan, "tune", tuner.advance)
        law = fit_tuned_law(tuner.trials)
        self._write("tuning.json", law.model_dump_json(indent=2))
        if law.status != "ok":
            raise UserError(
                f"hyperparameters.tune: {law.reason}. The trials are kept: correct the study file, give the study "
                "another name and run it again, and only new trials are trained"
            )
        return law

    def _tuned(self, rates: LearningRateLaw, params: float, tokens: float) -> dict[str, float]:
        """What tuning says beside the rate, for :func:`run_spec`."""
        if rates.tuned is None:
            return {}
        values = {name: float(f"{value:.6g}") for name, value in rates.tuned.at(params, tokens).items()}
        if "warmup" in values:
            values["warmup"] = min(values["warmup"], 1 - self.study.hyperparameters.cooldown)
        return values

    def _train(self, plan: Plan, stage: Stage) -> None:
        rows = self.ledger.runs(self.study.name, stage)
        if all(row.state in ENDED for row in rows):
            self.progress.runs(stage, rows)
            return
        self._run_stage(plan, stage)

    def _run_stage(self, plan: Plan, stage: Stage, advance: Callable[[], None] = lambda: None) -> None:
        execute = self.study.execute
        run_stage(
            self.ledger,
            executor_for(execute, self.workspace.root, self.study.name, plan.numerics.threads),
            self.study.name,
            stage,
            workers=self.workers,
            report=lambda rows: self.progress.runs(stage, rows),
            advance=advance,
            hang_seconds=execute.hang_seconds,
        )

    # Answers

    def fit(self, plan: Plan) -> Fit:
        """Fit the sweep's finished runs by every estimator; the hold-out, which this fit forecasts, is not among
        them."""
        table = observations(self.ledger, self.study.name, plan)
        self.progress.step("fitting", None)
        fit = _fitted(table[table["role"] == "fit"])
        self._write("fit.json", fit.model_dump_json(indent=2))
        return fit

    def fit_of_all(self, plan: Plan, fit: Fit) -> Fit:
        """``fit``, with the hold-out and rungs that have ended since among its runs: what the large run is sized and
        forecast by. Once its own forecast is scored, a run nearer to the target tells more of it than any other."""
        table = observations(self.ledger, self.study.name, plan, stages=("sweep", "hold-out", "rung"))
        if set(table["role"]) <= {"fit"}:
            return fit
        wider = _fitted(table.assign(role="fit"))
        if wider.parametric.status == "refused" and fit.parametric.status == "ok":
            return fit
        self._write("fit_of_all.json", wider.model_dump_json(indent=2))
        return wider

    def hold_out(self, plan: Plan, fit: Fit, rates: LearningRateLaw) -> tuple[Forecast | None, Outcome | None]:
        """Register the forecast of the hold-out run, train the run, score the forecast."""
        point = plan.hold_out.point
        runs = [
            PlannedRun(
                spec=self._spec(plan, rates, point, replicate),
                stage="hold-out",
                label=f"hold-out {_label(point)} #{replicate}",
                budget_flops=point.budget,
            )
            for replicate in range(plan.replicates)
        ]
        self.ledger.add(self.study.name, runs)
        keys = [run.spec.key for run in runs]
        forecast = self._registered_forecast(fit, plan, keys)
        if forecast is not None:
            self._write("forecast.json", forecast.model_dump_json(indent=2))
        self._train(plan, "hold-out")
        losses = {
            row.key: row.loss
            for row in self.ledger.runs(self.study.name, "hold-out")
            if row.state == "finished" and row.loss is not None and row.key in keys
        }
        if forecast is None or not losses:
            return forecast, None
        outcome = score(forecast, list(losses.values()), run_keys=tuple(losses))
        self.ledger.score(forecast.key, outcome)
        self._write("outcome.json", outcome.model_dump_json(indent=2))
        return forecast, outcome

    def _registered_forecast(self, fit: Fit, plan: Plan, keys: list[str]) -> Forecast | None:
        """The forecast that stands in the ledger for these runs, or a new one, written before they start."""
        for row in self.ledger.forecasts(self.study.name):
            if row.run_keys == keys:
                return Forecast.model_validate(row.forecast)
        if fit.parametric.status != "ok":
            self.progress.say(f"no forecast of the hold-out: {fit.parametric.reason}")
            return None
        if any(row.started_at is not None for row in self.ledger.runs(self.study.name, "hold-out")):
            self.progress.say("no forecast of the hold-out: another study of this workspace has already trained it")
            return None
        point = plan.hold_out.point
        forecast = predict(fit, params=point.params.total, tokens=point.tokens, flops=point.flops)
        chain = register_forecast(self.ledger, self.workspace.forecasts, self.study.name, forecast, keys)
        self.progress.say(
            f"registered the forecast {chain[:12]}: loss {forecast.loss.estimate:.4f} "
            f"[{forecast.loss.low:.4f}, {forecast.loss.high:.4f}] at {point.flops:.2e} FLOPs"
        )
        return forecast

    def recommend(self, plan: Plan, fit: Fit, rates: LearningRateLaw, **target: Any) -> Recommendation:
        """The large run's configuration for the study's question, or for another ``target`` (flops, or gpus, days)."""
        return self.recommender(plan, fit, rates)(**(target or self.study.question.target()))

    def recommender(self, plan: Plan, fit: Fit, rates: LearningRateLaw) -> Callable[..., Recommendation]:
        """What recommends for any target of :func:`scaling.recommend.recommend`: a run and its rungs by one fit."""
        name, wider = self.study.name, self.fit_of_all(plan, fit)
        way = on_the_way(wider, observations(self.ledger, name, plan), curves(self.ledger, name))
        context = self.context(plan, rates).model_copy(update={"on_the_way": way})
        more = wider.observations.used - fit.observations.used
        fitted_to = None if wider is fit else f"the sweep's runs and {more} more: the hold-out, and rungs"

        def recommended(**target: Any) -> Recommendation:
            made = recommend(wider, **target, study=name, context=context)
            return made.model_copy(update={"fitted_to": fitted_to})

        return recommended

    def context(self, plan: Plan, rates: LearningRateLaw) -> StudyContext:
        model = self.study.model
        largest = max(plan.sweep, key=lambda planned: (planned.point.flops, planned.point.tokens)).point
        batch = batch_rule(self.study, plan.batch_at_tokens)
        return StudyContext(
            architecture=model.architecture,
            vocabulary=self.study.corpus.vocabulary,
            context=model.context,
            tied=model.tied,
            data_key=plan.corpus.data_key,
            tokenizer_key=plan.corpus.tokenizer_key,
            held_out_tokens=plan.evaluation_tokens,
            unique_tokens=plan.corpus.train_tokens,
            bytes_per_token=plan.corpus.bytes_per_token,
            learning_rate_law=rates,
            batch=batch if batch.exponent else batch.model_copy(update={"at_tokens": largest.tokens}),
            weight_decay=self.study.hyperparameters.weight_decay,
            parametrisation=plan.parametrisation,
            seed=self.study.seed,
        )

    def result(self, plan: Plan) -> StudyResult:
        """Everything, from the first stage to the last; what is done already is only read."""
        rates = self.sweep(plan)
        plan = self._frozen_plan()
        fit = self.fit(plan)
        forecast, outcome = self.hold_out(plan, fit, rates)
        recommendation = None
        if "ok" in (fit.parametric.status, fit.isoflop.status):
            recommendation = self.recommend(plan, fit, rates)
        table = observations(self.ledger, self.study.name, plan)
        self._write("observations.csv", table.to_csv(index=False))
        failed = tuple(
            run for run in self.ledger.runs(self.study.name) if run.state in ("failed", "diverged", "killed")
        )
        return StudyResult(
            study=self.study,
            plan=plan,
            observations=table,
            curves=curves(self.ledger, self.study.name),
            learning_rates=rates,
            fit=fit,
            forecast=forecast,
            outcome=outcome,
            recommendation=recommendation,
            failed=failed,
            folder=self.folder,
        )


def _fitted(table: pd.DataFrame) -> Fit:
    # An envelope needs training curves or far more budgets than a study plans.
    return fit_table(table, params_convention="total", flops_convention="exact", methods=("parametric", "isoflop"))


def _label(point: DesignPoint) -> str:
    return f"{point.shape.architecture} {format_count(point.params.total)} · {format_count(point.tokens)} tokens"
