"""The truth about every run: one transactional database, SQLite in WAL mode or Postgres, through SQLAlchemy.

A run is one row, found by the hash of its specification and shared by all studies of the workspace. Its state moves
only in single statements, so that two processes asking for work never get the same run:

    planned ──lease──► running ──finish──► finished | diverged
       ▲                  │
       └──release/fail────┴──too many failures──► failed

``sweeps.ledger.control`` sets runs to ``killed`` and plans killed and failed ones again. A trial that tuning gives up
is ``pruned``; it is planned again if something else than tuning wants the run.

A run may branch off another, its carrier, which keeps a checkpoint on its way for it: it is leased once the carrier is
past that step, or has ended in whatever way.

Forecasts are appended to a hash chain: each row's hash covers the one before it, so a later change shows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from pydantic import model_validator

from scaling.architectures import training_flops
from scaling.errors import UserError
from scaling.forecast import Forecast, Outcome
from scaling.record import Record, content_hash
from scaling.run_spec import RunSpec
from sweeps.failures import MAX_FAILURES, FailureKind, after_failure, after_preemption
from sweeps.ledger.owner import Owner
from sweeps.ledger.schema import (
    ABOUT,
    FORECASTS,
    MEMBERS,
    METADATA,
    MLFLOW_RUNS,
    POINTS,
    RUNS,
    STUDIES,
    alone,
    insert,
    open_database,
)

__all__ = ["ENDED", "LARGE", "MAX_FAILURES", "Held", "Ledger", "PlannedRun", "RunRow", "Stage", "State"]

LEDGER_VERSION = 3
GENESIS = "0" * 64

State = Literal["planned", "running", "finished", "diverged", "failed", "killed", "pruned"]
Stage = Literal["probe", "tune", "sweep", "hold-out", "rung", "final"]
LARGE: tuple[Stage, ...] = ("rung", "final")
"""Trained by `scaling train`, when and where somebody starts it, and not by the study's own workers."""
ENDED: tuple[State, ...] = ("finished", "diverged", "failed", "killed", "pruned")
"""What nobody trains unless somebody asks for it again."""


class PlannedRun(Record):
    """A run as a study wants it: the specification and the place it has in the study."""

    spec: RunSpec
    stage: Stage
    label: str
    budget_flops: float | None = None
    carrier: str | None = None
    """Key of the run with the same ``trunk_key`` whose checkpoint this one starts from."""

    @model_validator(mode="after")
    def _after_its_carrier(self) -> PlannedRun:
        if self.carrier == self.spec.key:
            raise ValueError(f"run {self.spec.key[:8]} can't branch off itself")
        return self


class _RunColumns(NamedTuple):
    key: str
    stage: Stage
    label: str
    budget_flops: float | None
    flops: float
    carrier: str | None
    own_flops: float
    state: State
    failures: int
    failure_kind: FailureKind | None
    step: int
    tokens_per_second: float | None
    loss: float | None
    error: str | None
    started_at: float | None
    ended_at: float | None
    spec_json: str
    result_json: str | None


class RunRow(_RunColumns):
    """One run as it stands, with its place in the study that asked; what is long in it is read when it is looked at."""

    @cached_property
    def spec(self) -> RunSpec:
        return RunSpec.model_validate_json(self.spec_json)

    @cached_property
    def result(self) -> dict[str, Any] | None:
        return None if self.result_json is None else json.loads(self.result_json)

    @property
    def share(self) -> float:
        """How much of the run is done."""
        if self.state in ("finished", "diverged"):
            return 1.0
        return self.step / self.spec.steps if self.step else 0.0


class Held(NamedTuple):
    """A run that is being trained: who trains it, and the last that was heard of it."""

    key: str
    owner: Owner
    heartbeat: float
    step: int


class Ledger:
    """The ledger at ``url``; it is created if it is missing."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = open_database(url)
        with self._engine.begin() as db:
            alone(db)
            METADATA.create_all(db)
            version = db.scalar(sa.select(ABOUT.c.version))
            if version is None:
                db.execute(sa.insert(ABOUT).values(version=LEDGER_VERSION))
            elif version != LEDGER_VERSION:
                raise UserError(
                    f"the ledger {url} has version {version}, this software reads {LEDGER_VERSION}: "
                    "use the release that wrote it, or another --workspace"
                )

    def close(self) -> None:
        self._engine.dispose()

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        """For tools that read and change several rows at once: all or nothing, and nobody else writes meanwhile."""
        return self._engine.begin()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """For looking; waits for nobody and holds nobody up."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            yield db

    # Studies

    def plan_of(self, study: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(settings, plan) of the study as frozen, or None."""
        with self.reading() as db:
            row = db.execute(sa.select(STUDIES.c.settings, STUDIES.c.plan).where(STUDIES.c.name == study)).first()
        return (row.settings, row.plan) if row else None

    def freeze(self, study: str, settings: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Store the study's plan in place of an earlier one: whoever plans sees to it that no run loses its place."""
        values = {"settings": settings, "plan": plan, "frozen_at": time.time()}
        with self._engine.begin() as db:
            db.execute(
                insert(db, STUDIES)
                .values(name=study, **values)
                .on_conflict_do_update(index_elements=["name"], set_=values)
            )

    def study_names(self) -> list[str]:
        with self.reading() as db:
            return list(db.scalars(sa.select(STUDIES.c.name).order_by(STUDIES.c.frozen_at)))

    # Runs

    def add(self, study: str, runs: Iterable[PlannedRun]) -> None:
        """Make ``runs`` part of ``study``; runs that the workspace already has, in any state, are not planned anew."""
        planned, members, runs = [], [], list(runs)
        for run in runs:
            flops = training_flops(run.spec.shape, run.spec.tokens)
            branch_step = run.spec.branch_step if run.carrier else 0
            planned.append(
                {
                    "key": run.spec.key,
                    "spec": run.spec.model_dump(mode="json"),
                    "flops": flops,
                    "carrier": run.carrier,
                    "branch_step": branch_step,
                    "own_flops": flops * (1 - branch_step / run.spec.steps),
                }
            )
            members.append(
                {
                    "study": study,
                    "run_key": run.spec.key,
                    "stage": run.stage,
                    "label": run.label,
                    "budget_flops": run.budget_flops,
                }
            )
        if planned:
            # The rows stand beside the statements: they go to the database together.
            with self._engine.begin() as db:
                db.execute(insert(db, RUNS).on_conflict_do_nothing(), planned)
                db.execute(insert(db, MEMBERS).on_conflict_do_nothing(), members)
                wanted = [run.spec.key for run in runs if run.stage != "tune"]
                given_up = sa.select(RUNS.c.key).where(RUNS.c.state == "pruned")
                for key in {*wanted} & {*db.scalars(given_up)}:
                    again = {"state": "planned", "owner": None, "error": None, "ended_at": None}
                    db.execute(sa.update(RUNS).where(RUNS.c.key == key, RUNS.c.state == "pruned").values(**again))

    def runs(self, study: str, stage: Stage | None = None, *, light: bool = False) -> list[RunRow]:
        """The study's runs, the cheapest first; ``light`` leaves out results, and specifications but of runs under way.

        What is long in 100,000 rows takes longer to read than all the rest of them.
        """
        named = [(RUNS if name in RUNS.c else MEMBERS).c[name] for name in _RunColumns._fields[:-2]]
        texts: list[sa.ColumnElement[Any]] = [sa.cast(RUNS.c.spec, sa.Text), sa.cast(RUNS.c.result, sa.Text)]
        if light:
            under_way = (RUNS.c.step > 0) & RUNS.c.state.not_in(("finished", "diverged"))
            texts = [sa.case((under_way, texts[0]), else_=""), sa.null()]
        query = (
            sa.select(*named, *texts)
            .join(MEMBERS, MEMBERS.c.run_key == RUNS.c.key)
            .where(MEMBERS.c.study == study)
            .order_by(RUNS.c.flops, RUNS.c.key)
        )
        if stage:
            query = query.where(MEMBERS.c.stage == stage)
        with self.reading() as db:
            return [RunRow._make(row) for row in db.execute(query)]

    def lease(self, study: str, stage: Stage, owner: Owner) -> RunSpec | None:
        """Take the longest run of the stage that can start for ``owner``, or None; no two callers get the same run."""
        candidate = (
            sa.select(RUNS.c.key)
            .join(MEMBERS, MEMBERS.c.run_key == RUNS.c.key)
            .where(MEMBERS.c.study == study, MEMBERS.c.stage == stage, RUNS.c.state == "planned")
            .where(_can_start(study, stage))
            .order_by(RUNS.c.own_flops.desc(), RUNS.c.key)
            .limit(1)
            # Where writers don't wait for each other (Postgres), each looks past what another is taking.
            .with_for_update(skip_locked=True, of=RUNS)
            .scalar_subquery()
        )
        leased = self._take(RUNS.c.key == candidate, owner)
        return leased[0] if leased else None

    def lease_alike(
        self, study: str, stage: Stage, owner: Owner, spec: RunSpec, count: int, alike: Callable[[RunSpec], bool]
    ) -> list[RunSpec]:
        """Take up to ``count`` more planned runs of the stage, ``alike`` the leased ``spec``, to be trained with it;
        none that shares a trunk.

        A run that has failed is taken with others that failed as often, so that an interrupted group is the same again,
        and alone in its last try, so that a run that brings every process down takes no neighbours with it.
        """
        with self.reading() as db:
            failures = db.scalar(sa.select(RUNS.c.failures).where(RUNS.c.key == spec.key))
            if failures is None or failures >= MAX_FAILURES - 1:
                return []
            rows = db.execute(
                sa.select(RUNS.c.key, RUNS.c.spec)
                .join(MEMBERS, MEMBERS.c.run_key == RUNS.c.key)
                .where(
                    MEMBERS.c.study == study,
                    MEMBERS.c.stage == stage,
                    RUNS.c.state == "planned",
                    RUNS.c.failures == failures,
                    RUNS.c.carrier.is_(None),
                    RUNS.c.key.not_in(sa.select(RUNS.c.carrier).where(RUNS.c.carrier.is_not(None))),
                )
                .order_by(RUNS.c.key)
            ).all()
        keys = [row.key for row in rows if alike(RunSpec.model_validate(row.spec))][:count]
        return self._take(RUNS.c.key.in_(keys), owner) if keys else []

    def claim(self, key: str, owner: Owner) -> bool:
        """Take this very run if it is planned, or if the process that trained it is gone; whether it was taken."""
        held = next((held for held in self.held() if held.key == key), None)
        if held is not None and held.owner.is_dead():
            self.release(key, held.owner)
        return bool(self._take(RUNS.c.key == key, owner))

    def trunk_of(self, key: str) -> tuple[str | None, list[int]]:
        """(the run's carrier, if any; the steps at which others leave the run)."""
        with self.reading() as db:
            carrier = db.scalar(sa.select(RUNS.c.carrier).where(RUNS.c.key == key))
            steps = db.scalars(sa.select(RUNS.c.branch_step).where(RUNS.c.carrier == key).distinct())
            return carrier, sorted(steps)

    def is_waiting(self, study: str, stage: Stage) -> bool:
        """Whether some run of the stage is planned, be it that its carrier has not come far enough yet."""
        with self.reading() as db:
            query = sa.select(RUNS.c.key).join(MEMBERS, MEMBERS.c.run_key == RUNS.c.key)
            chosen = (MEMBERS.c.study == study, MEMBERS.c.stage == stage, RUNS.c.state == "planned")
            return db.scalar(query.where(*chosen).limit(1)) is not None

    def _take(self, chosen: sa.ColumnElement[bool], owner: Owner) -> list[RunSpec]:
        """Lease the ``chosen`` runs that are still planned, in one transaction."""
        now = time.time()
        with self._engine.begin() as db:
            rows = db.execute(
                sa.update(RUNS)
                .where(chosen, RUNS.c.state == "planned")
                .values(
                    state="running",
                    owner=str(owner),
                    heartbeat=now,
                    started_at=sa.func.coalesce(RUNS.c.started_at, now),
                )
                .returning(RUNS.c.key, RUNS.c.spec)
            ).all()
        return [RunSpec.model_validate(row.spec) for row in sorted(rows, key=lambda row: row.key)]

    def heartbeat(
        self,
        key: str,
        owner: Owner,
        *,
        step: int,
        tokens_per_second: float | None,
        loss: float | None,
        points: Sequence[Mapping[str, Any]] = (),
    ) -> bool:
        """Say that the run is alive and how far it is, with new points of its curve in the same transaction; False, and
        nothing is written, if the lease was lost."""
        said = {"heartbeat": time.time(), "step": step, "tokens_per_second": tokens_per_second, "loss": loss}
        with self._engine.begin() as db:
            owned = db.execute(_while_owned(key, owner).values(**said)).rowcount == 1
            if owned:
                _insert_points(db, key, points)
        return owned

    def pulse(self, owner: Owner) -> None:
        """Say that ``owner`` is alive, whatever it trains and though no run of its has moved."""
        mine = sa.update(RUNS).where(RUNS.c.owner == str(owner), RUNS.c.state == "running")
        with self._engine.begin() as db:
            db.execute(mine.values(heartbeat=time.time()))

    def finish(self, key: str, owner: Owner, state: Literal["finished", "diverged"], result: Mapping[str, Any]) -> bool:
        return self._owned(
            key,
            owner,
            state=state,
            result=dict(result),
            owner=None,
            ended_at=time.time(),
            error=None,
            step=result["steps"],
            loss=result.get("loss_nats"),
        )

    def release(self, key: str, owner: Owner) -> bool:
        """Give an interrupted run back; no failure is counted. One that was killed or pruned is let go of and
        stays so."""
        with self._engine.begin() as db:
            killed = (RUNS.c.key == key, RUNS.c.owner == str(owner), RUNS.c.state.in_(("killed", "pruned")))
            db.execute(sa.update(RUNS).where(*killed).values(owner=None))
            return db.execute(_while_owned(key, owner).values(owner=None, **after_preemption())).rowcount == 1

    def prune(self, key: str, why: str) -> bool:
        """Give a trial up before its end; who trains it stops at the next step's boundary. Not if something else than
        tuning wants it too."""
        others = sa.select(MEMBERS.c.run_key).where(MEMBERS.c.run_key == key, MEMBERS.c.stage != "tune")
        chosen = (RUNS.c.key == key, RUNS.c.state.in_(("planned", "running")), ~others.exists())
        values = {"state": "pruned", "error": why, "ended_at": time.time()}
        with self._engine.begin() as db:
            return db.execute(sa.update(RUNS).where(*chosen).values(**values)).rowcount == 1

    def fail(self, key: str, owner: Owner, error: str, kind: FailureKind = "run") -> bool:
        """Count a failure; the run is planned again, or ``failed`` once it has had what ``sweeps.failures`` allows."""
        return self._owned(key, owner, owner=None, **after_failure(kind, error))

    def _owned(self, key: str, holder: Owner, **values: Any) -> bool:
        with self._engine.begin() as db:
            return db.execute(_while_owned(key, holder).values(**values)).rowcount == 1

    def held(self) -> list[Held]:
        """The workspace's runs that are being trained, of whichever study."""
        query = sa.select(RUNS.c.key, RUNS.c.owner, RUNS.c.heartbeat, RUNS.c.step).where(RUNS.c.state == "running")
        with self.reading() as db:
            return [Held(row.key, Owner.parse(row.owner), row.heartbeat, row.step) for row in db.execute(query)]

    def reap(self, watched: Callable[[Owner], bool] = lambda _: False) -> list[str]:
        """Plan again the runs whose owner is dead on this host, but for owners that are ``watched`` by somebody who
        will tell; returns their keys."""
        dead = [(key, owner) for key, owner, *_ in self.held() if not watched(owner) and owner.is_dead()]
        return [key for key, owner in dead if self.release(key, owner)]

    # Curves

    def add_points(self, key: str, points: Sequence[Mapping[str, Any]]) -> None:
        """Append curve points; a point measured again after a restart is the same point and is kept once."""
        with self._engine.begin() as db:
            _insert_points(db, key, points)

    def points(self, key: str, after_id: int = 0) -> list[sa.Row[Any]]:
        """Points of a run with an id over ``after_id``, in the order of their ids."""
        with self.reading() as db:
            return list(
                db.execute(
                    sa.select(POINTS).where(POINTS.c.run_key == key, POINTS.c.id > after_id).order_by(POINTS.c.id)
                )
            )

    # Forecasts

    def register(self, study: str, forecast: Forecast, run_keys: Sequence[str]) -> str:
        """Append a forecast to the chain before its runs start; the same forecast is registered once.

        Returns the chain's hash. Raises ``RuntimeError`` if one of the runs has already been started.
        """
        with self._engine.begin() as db:
            alone(db)
            there = db.scalar(
                sa.select(FORECASTS.c.hash).where(FORECASTS.c.study == study, FORECASTS.c.forecast_key == forecast.key)
            )
            if there:
                return str(there)
            started = db.scalars(
                sa.select(RUNS.c.key).where(RUNS.c.key.in_(run_keys), RUNS.c.started_at.is_not(None))
            ).all()
            if started:
                raise RuntimeError(f"run {started[0][:8]} started before its forecast was registered")
            last = db.execute(sa.select(FORECASTS.c.hash).order_by(FORECASTS.c.id.desc()).limit(1)).scalar()
            row = {
                "study": study,
                "forecast": forecast.model_dump(mode="json"),
                "forecast_key": forecast.key,
                "run_keys": list(run_keys),
                "registered_at": time.time(),
                "previous_hash": last or GENESIS,
            }
            chain = content_hash(row)
            db.execute(sa.insert(FORECASTS).values(**row, hash=chain))
        return chain

    def forecasts(self, study: str | None = None) -> list[sa.Row[Any]]:
        query = sa.select(FORECASTS).order_by(FORECASTS.c.id)
        with self.reading() as db:
            return list(db.execute(query.where(FORECASTS.c.study == study) if study else query))

    def score(self, forecast_key: str, outcome: Outcome) -> None:
        with self._engine.begin() as db:
            db.execute(
                sa.update(FORECASTS)
                .where(FORECASTS.c.forecast_key == forecast_key)
                .values(outcome=outcome.model_dump(mode="json"))
            )

    def broken_links(self) -> list[int]:
        """Ids of forecasts whose hash no longer covers their row, or whose link to the row before is cut."""
        broken, previous = [], GENESIS
        for row in self.forecasts():
            content = {
                "study": row.study,
                "forecast": row.forecast,
                "forecast_key": row.forecast_key,
                "run_keys": row.run_keys,
                "registered_at": row.registered_at,
                "previous_hash": row.previous_hash,
            }
            if row.hash != content_hash(content) or row.previous_hash != previous:
                broken.append(row.id)
            previous = row.hash
        return broken

    # MLflow's side of the projection

    def mlflow_run(self, uri: str, study: str, key: str) -> sa.Row[Any] | None:
        with self.reading() as db:
            row: sa.Row[Any] | None = db.execute(
                sa.select(MLFLOW_RUNS).where(
                    MLFLOW_RUNS.c.tracking_uri == uri,
                    MLFLOW_RUNS.c.study == study,
                    MLFLOW_RUNS.c.run_key == key,
                )
            ).first()
        return row

    def set_mlflow_run(self, uri: str, study: str, key: str, **values: Any) -> None:
        """Remember which MLflow run shows ``key`` (the study itself has the key ``""``) and what it was sent."""
        with self._engine.begin() as db:
            db.execute(
                insert(db, MLFLOW_RUNS)
                .values(tracking_uri=uri, study=study, run_key=key, **values)
                .on_conflict_do_update(index_elements=["tracking_uri", "study", "run_key"], set_=values)
            )


def _can_start(study: str, stage: Stage) -> sa.ColumnElement[bool]:
    """Whether the run needs no carrier, or its carrier has kept the checkpoint or never will.

    A carrier that is planned for other studies only may never be trained, and is not waited for.
    """
    carriers = RUNS.alias()
    here = sa.select(MEMBERS.c.run_key).where(MEMBERS.c.study == study, MEMBERS.c.stage == stage)
    coming = (carriers.c.state == "running") | ((carriers.c.state == "planned") & carriers.c.key.in_(here))
    behind = sa.select(carriers.c.key).where(
        carriers.c.key == RUNS.c.carrier, carriers.c.step < RUNS.c.branch_step, coming
    )
    return ~behind.correlate(RUNS).exists()


def _while_owned(key: str, holder: Owner) -> sa.Update:
    """A change of the run that is none if somebody else, or nobody, holds it."""
    return sa.update(RUNS).where(RUNS.c.key == key, RUNS.c.owner == str(holder), RUNS.c.state == "running")


def _insert_points(db: sa.Connection, key: str, points: Sequence[Mapping[str, Any]]) -> None:
    if points:
        # One statement with its rows beside it: with the rows in it, it would be built anew each time.
        statement = insert(db, POINTS).on_conflict_do_nothing(index_elements=["run_key", "step", "name"])
        db.execute(statement, [{"run_key": key, "time": time.time(), **point} for point in points])
