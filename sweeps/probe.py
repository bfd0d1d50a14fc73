"""Learning rates from short runs: the valley of loss at two small sizes, then a power law in the parameters; or at one
size, under a parametrisation that carries its rate to all.

Published laws are refused here: at 28k parameters Step Law's rate costs 3.8% of loss (measured), for it was fitted from
60M parameters up.
"""

from __future__ import annotations

from collections.abc import Sequence

from scaling.architectures import total_params
from scaling.errors import UserError
from scaling.hyperparameters import LearningRateLaw, fit_valley, law_from_probe, transferred_rate
from scaling.quantity import format_count
from scaling.run_spec import Parametrisation
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.planning.plan import Plan, run_spec
from sweeps.study import Study

__all__ = ["probe_runs", "probed_law"]


def probe_runs(study: Study, plan: Plan) -> list[PlannedRun]:
    """The probe's runs; they differ from the sweep's in nothing but rate and length."""
    return [
        PlannedRun(
            spec=run_spec(study, plan, p.shape, p.tokens, p.learning_rate, study.seed),
            stage="probe",
            label=f"probe {format_count(total_params(p.shape))} lr {p.learning_rate:g}",
        )
        for p in plan.probe
    ]


def probed_law(ledger: Ledger, study: str, parametrisation: Parametrisation) -> LearningRateLaw:
    """The law from the finished probe runs; a diverged rate counts as worse than all that finished.

    Under muP and CompleteP it is the probed size's rate for all.

    Raises :class:`UserError` if no size has three finished rates.
    """
    by_size: dict[int, list[tuple[float, float]]] = {}
    for run in ledger.runs(study, "probe"):
        if run.state == "finished" and run.loss is not None:
            by_size.setdefault(total_params(run.spec.shape), []).append((run.spec.optimizer.learning_rate, run.loss))
    probed = {total: points for total, points in sorted(by_size.items()) if len(points) >= 3}
    valleys = [(float(total), fit_valley(*_columns(sorted(points)))) for total, points in probed.items()]
    if not valleys:
        raise UserError(
            "the learning-rate probe has no size with three finished runs; look at `scaling status`, or set "
            "hyperparameters.learning_rate to a number"
        )
    if parametrisation.name == "standard":
        return law_from_probe(valleys)
    return transferred_rate(*valleys[0], parametrisation)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in points], [loss for _, loss in points]
