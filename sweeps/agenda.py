"""What `scaling sweep` would train, and what is there already: the ledger asked, nothing changed."""

from __future__ import annotations

from typing import Literal, NamedTuple

from scaling.errors import UserError
from scaling.hyperparameters import LearningRateLaw, fixed_rate
from sweeps.conduct import Conductor
from sweeps.ledger.control import states_of
from sweeps.ledger.ledger import ENDED, PlannedRun, Stage, State
from sweeps.planning.plan import Plan
from sweeps.probe import probe_result, probe_runs

__all__ = ["AgendaItem", "agenda"]


class AgendaItem(NamedTuple):
    """A run of the sweep, and what would be done about it."""

    stage: Stage
    label: str
    key: str | None
    """None while it hangs on the probe's outcome."""
    seconds: float
    state: State | Literal["new"]
    """As the workspace has it, for whichever study it was trained."""

    @property
    def action(self) -> str:
        if self.state in ("new", "planned"):
            return "train"
        return {"running": "in training", "failed": "left: retry it", "killed": "left: retry it"}.get(
            self.state, "there already"
        )


def agenda(conductor: Conductor, plan: Plan) -> list[AgendaItem]:
    """Each run of probe and sweep; nothing is trained, and nothing written."""
    probe = probe_runs(conductor.study, plan)
    items = _looked_up(conductor, probe, [p.seconds for p in plan.probe])
    rates = _rates(conductor, plan, items)
    seconds = [planned.seconds for planned in plan.sweep]
    if rates is not None:
        return items + _looked_up(conductor, conductor.sweep_runs(plan, rates), seconds)
    # Their keys and so their states follow from the probe; shape and length are known.
    labels = [run.label for run in conductor.sweep_runs(plan, fixed_rate(0.01, plan.parametrisation))]
    return items + [AgendaItem("sweep", label, None, each, "new") for label, each in zip(labels, seconds, strict=True)]


def _rates(conductor: Conductor, plan: Plan, probe: list[AgendaItem]) -> LearningRateLaw | None:
    given = conductor.study.hyperparameters.learning_rate
    if given != "probe":
        return fixed_rate(given, plan.parametrisation)
    if not all(item.state in ENDED for item in probe):
        return None
    try:
        return probe_result(conductor.ledger, conductor.study.name, plan.parametrisation).law
    except UserError:
        return None


def _looked_up(conductor: Conductor, runs: list[PlannedRun], seconds: list[float]) -> list[AgendaItem]:
    states = states_of(conductor.ledger, [run.spec.key for run in runs])
    return [
        AgendaItem(run.stage, run.label, run.spec.key, each, states.get(run.spec.key, "new"))
        for run, each in zip(runs, seconds, strict=True)
    ]
