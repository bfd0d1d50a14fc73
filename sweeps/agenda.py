"""What `scaling sweep` would train, and what is there already: the ledger asked, nothing changed."""

from __future__ import annotations

from typing import Literal, NamedTuple

from scaling.errors import UserError
from scaling.fits.tuned_law import TunedLaw
from scaling.hyperparameters import LearningRateLaw, fixed_rate, tuned_rate
from sweeps.conduct import Conductor
from sweeps.ledger.control import states_of
from sweeps.ledger.ledger import ENDED, PlannedRun, Stage, State
from sweeps.planning.plan import Plan
from sweeps.probe import probe_runs, probed_law

__all__ = ["AgendaItem", "agenda"]


class AgendaItem(NamedTuple):
    """A run of the sweep, and what would be done about it."""

    stage: Stage
    label: str
    key: str | None
    """None while it hangs on the outcome of others."""
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
    """Each run of probe or tuning, and of the sweep; nothing is trained, and nothing written."""
    probe = probe_runs(conductor.study, plan)
    items = _looked_up(conductor, probe, [p.seconds for p in plan.probe]) + _trials(conductor, plan)
    rates = _rates(conductor, plan, items)
    seconds = [planned.seconds for planned in plan.sweep]
    if rates is not None:
        return items + _looked_up(conductor, conductor.sweep_runs(plan, rates), seconds)
    # Their keys and so their states follow from the probe; shape and length are known.
    labels = [run.label for run in conductor.sweep_runs(plan, fixed_rate(0.01, plan.parametrisation))]
    return items + [AgendaItem("sweep", label, None, each, "new") for label, each in zip(labels, seconds, strict=True)]


def _trials(conductor: Conductor, plan: Plan) -> list[AgendaItem]:
    """The trials that were asked for, and those to come: what they try follows from the others' outcomes."""
    asked = conductor.ledger.runs(conductor.study.name, "tune")
    items = []
    for cell in plan.tune:
        size = f"tune {cell.size}"
        rows = [row for row in asked if row.label.startswith(f"{size}: ")]
        items += [AgendaItem("tune", row.label, row.key, cell.seconds, row.state) for row in rows]
        items += [AgendaItem("tune", size, None, cell.seconds, "new")] * (plan.tune_trials - len(rows))
    return items


def _rates(conductor: Conductor, plan: Plan, before: list[AgendaItem]) -> LearningRateLaw | None:
    """The law that the sweep's runs would follow; None while the runs ``before`` it have not ended."""
    settings = conductor.study.hyperparameters
    if settings.learning_rate != "probe":
        return fixed_rate(settings.learning_rate, plan.parametrisation)
    if not all(item.state in ENDED for item in before):
        return None
    if settings.tune:
        written = conductor.folder / "tuning.json"
        law = TunedLaw.model_validate_json(written.read_bytes()) if written.is_file() else None
        return tuned_rate(law) if law is not None and law.status == "ok" else None
    try:
        return probed_law(conductor.ledger, conductor.study.name, plan.parametrisation)
    except UserError:
        return None


def _looked_up(conductor: Conductor, runs: list[PlannedRun], seconds: list[float]) -> list[AgendaItem]:
    states = states_of(conductor.ledger, [run.spec.key for run in runs])
    return [
        AgendaItem(run.stage, run.label, run.spec.key, each, states.get(run.spec.key, "new"))
        for run, each in zip(runs, seconds, strict=True)
    ]
