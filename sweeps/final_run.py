"""The large run in its study's ledger: forecast before it starts, followed while it goes, scored at its end.

It is trained by ``scaling train`` and not by the engine, on this machine or on another. Here the ledger is told of it
step by step; a run that was trained elsewhere is taken over with its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from scaling.errors import UserError
from scaling.forecast import Forecast, Outcome
from scaling.prediction import score
from scaling.quantity import format_count
from scaling.recommendation import Recommendation
from sweeps.ledger.control import adopt
from sweeps.ledger.ledger import Ledger, PlannedRun
from sweeps.ledger.owner import Owner
from sweeps.ledger.pulse import Pulse
from sweeps.ledger.registry import register_forecast
from sweeps.ledger.tracker import LedgerTracker
from sweeps.tracking.run_facts import record_facts
from sweeps.workspace import Workspace
from trainer.loop.result import RunResult
from trainer.run_folder import RunFolder
from trainer.system_facts import system_facts
from trainer.tracker import NullTracker

__all__ = ["FollowedRun", "Scored", "register", "score_folder"]


class Scored(NamedTuple):
    """A registered forecast and its outcome, of one run."""

    study: str
    forecast: Forecast
    outcome: Outcome


def register(ledger: Ledger, workspace: Workspace, made: Recommendation) -> str:
    """Put the recommended run into its study and its forecast into the chain; returns the chain's hash. Asked again,
    it changes nothing; another forecast of a run that has not started is registered beside the first.

    Raises :class:`UserError` where the recommendation has no run, no forecast or no study in this workspace, or the
    run has been started: what is said then is no forecast.
    """
    if made.run is None or made.forecast is None or made.study is None:
        missing = "run" if made.run is None else "forecast of its loss" if made.forecast is None else "study"
        raise UserError(f"the recommendation has no {missing}, so there is nothing to register")
    if ledger.plan_of(made.study) is None:
        raise UserError(
            f"study {made.study!r} is not in {workspace.root}: give --workspace with the workspace that it ran in"
        )
    run, forecast = made.run, made.forecast
    known = next((row for row in _registered(ledger, run.key) if row.forecast_key == forecast.key), None)
    if known is not None:
        return str(known.hash)
    label = f"{made.stage} {run.shape.architecture} {format_count(forecast.params.estimate)} · "
    label += f"{format_count(run.tokens)} tokens"
    planned = PlannedRun(spec=run, stage=made.stage, label=label, budget_flops=made.flops)
    ledger.add(made.study, [planned])
    try:
        return register_forecast(ledger, workspace.forecasts, made.study, forecast, [run.key])
    except RuntimeError as error:
        raise UserError(f"{error}: recommend another run, or compare it by hand") from None


def _registered(ledger: Ledger, key: str) -> list[sa.Row[Any]]:
    """The forecasts of this run alone, the newest last."""
    return [row for row in ledger.forecasts() if row.run_keys == [key]]


class FollowedRun(NullTracker):
    """A tracker that tells the workspace's ledger of the run that ``scaling train`` trains, if a forecast of it is
    registered there. ``made``, what recommends this very run, is registered first where it has not been."""

    def __init__(self, workspace: Workspace, made: Recommendation | None, say: Callable[[str], None]) -> None:
        self._workspace, self._made, self._say = workspace, made, say
        self._ledger: Ledger | None = None
        self._owner = Owner.me()
        self._tracker: LedgerTracker | None = None
        self._key = ""
        self._until_ended = ExitStack()

    def starting(self, key: str, folder: Path) -> None:
        """The run ``key`` is about to be trained in ``folder``. :class:`UserError` if somebody else is training it."""
        if not self._workspace.has_ledger:
            return
        ledger = self._ledger = Ledger(self._workspace.ledger_url)
        made = self._made
        here = made is not None and made.study is not None and ledger.plan_of(made.study) is not None
        if made is not None and here and made.forecast is not None and not _registered(ledger, key):
            chain, loss = register(ledger, self._workspace, made), made.forecast.loss
            self._say(
                f"registered the forecast {chain[:12]}: loss {loss.estimate:.4f} [{loss.low:.4f}, {loss.high:.4f}]"
            )
        if not _registered(ledger, key):
            return
        if not ledger.claim(key, self._owner):
            held = next((held for held in ledger.held() if held.key == key), None)
            if held is not None:
                raise UserError(f"run {key[:8]} is being trained by process {held.owner.pid} on {held.owner.host}")
            return  # it has ended, or was called off: nobody is told anything new
        self._key, self._tracker = key, LedgerTracker(ledger, key, self._owner)
        # A study's engine that runs beside it kills whoever hangs.
        pulse = self._until_ended.enter_context(Pulse(ledger, self._owner))
        pulse.watch([self._tracker])
        record_facts(ledger, [key], system_facts().model_dump(mode="json"))
        self._workspace.link_run_folder(key, folder)

    @property
    def called_off(self) -> bool:
        """Whether the ledger says that nobody is to train it any more."""
        return self._tracker is not None and self._tracker.lease_lost

    def ended(self, result: RunResult) -> Scored | None:
        """Give the run back, or write down its end; returns its forecast's outcome where it finished."""
        ledger, tracker = self._ledger, self._tracker
        if ledger is None:
            return None
        try:
            if tracker is not None:
                tracker.flush()
                if result.status == "interrupted":
                    ledger.release(self._key, self._owner)
                else:
                    ledger.finish(self._key, self._owner, result.status, result.model_dump(mode="json"))
            return _score(ledger, result) if result.status == "finished" else None
        finally:
            self._until_ended.close()
            ledger.close()

    def metrics(self, step: int, tokens: int, flops: float, values: Mapping[str, float]) -> None:
        if self._tracker is not None:
            self._tracker.metrics(step, tokens, flops, values)

    def progress(self, step: int, tokens: int, tokens_per_second: float, loss: float) -> None:
        if self._tracker is not None:
            self._tracker.progress(step, tokens, tokens_per_second, loss)

    def flush(self) -> None:
        if self._tracker is not None:
            self._tracker.flush()


def score_folder(workspace: Workspace, folder: RunFolder) -> Scored:
    """Take over a run that ``scaling train`` finished elsewhere and score its forecast.

    Raises :class:`UserError` if the folder has no finished run, or no forecast of it is registered here.
    """
    record, result = folder.record(), folder.result()
    if record is None or result is None or result.status != "finished":
        raise UserError(f"{folder.path} holds no finished run: `scaling train` continues one")
    ledger = Ledger(workspace.ledger_url)
    try:
        if not _registered(ledger, record.spec.key):
            raise UserError(
                f"no forecast of run {record.spec.key[:8]} is registered in {workspace.root}: register it before the "
                "run starts (`scaling recommend STUDY --register`)"
            )
        workspace.link_run_folder(record.spec.key, folder.path)
        adopt(ledger, record.spec.key, result.model_dump(mode="json"), record.begun_at, folder.curve().points())
        scored = _score(ledger, result)
        assert scored is not None
        return scored
    finally:
        ledger.close()


def _score(ledger: Ledger, result: RunResult) -> Scored | None:
    """Score every forecast of the run; the newest one's is returned."""
    scored = None
    for row in _registered(ledger, result.run_key):
        if result.loss_nats is not None:
            forecast = Forecast.model_validate(row.forecast)
            outcome = score(forecast, [result.loss_nats], [result.run_key])
            ledger.score(forecast.key, outcome)
            scored = Scored(row.study, forecast, outcome)
    return scored
