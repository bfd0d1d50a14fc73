"""A large run of a second, and its study: for tests of its way through ledger and MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling.forecast import Forecast
from scaling.recommendation import Recommendation
from scaling.record import Interval
from sweeps.conduct import Conductor
from sweeps.final_run import FollowedRun, Scored
from sweeps.planning.plan import run_spec
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.train import train
from trainer.run_folder import RunFolder, RunRecord
from trainer.tracker import Trackers

from .projected import STUDY, Projected
from .studies import small_study


class Large:
    """A recommended run of a second, in a workspace whose study has been planned."""

    def __init__(self, projected: Projected, text: Path, silent: Any) -> None:
        study = small_study(text)
        self.workspace, self.ledger = projected.workspace, projected.ledger
        self.plan, self.uri = projected.plan, projected.uri
        conductor = Conductor(study, self.workspace, silent)
        corpora = conductor.workspace.corpora
        conductor.plan()
        # The frozen plan came without its corpus.
        prepare(**study.corpus.model_dump(), into=corpora)
        self.corpus = Corpus(corpora / projected.plan.corpus.folder)
        self.run = run_spec(study, projected.plan, projected.plan.sweep[0].point.shape, 128 * 60, 0.01, 5)
        loss = Interval(estimate=5.0, low=4.0, high=6.0)
        one = Interval(estimate=1e4, low=None, high=None)
        self.made = Recommendation.model_construct(
            study=STUDY,
            stage="final",
            flops=1e9,
            run=self.run,
            run_key=self.run.key,
            forecast=Forecast(
                fit_key="f" * 64, flops=1e9, params=one, tokens=one, loss=loss, level=0.9, extrapolation_orders=1.0,
                params_convention="total", flops_convention="exact", assumptions=(),
            ),
        )  # fmt: skip

    def trained(self, folder: Path, tracker: Any, stop_at: int | None = None) -> RunResult:
        seen = 0

        def stop() -> bool:
            nonlocal seen
            seen += 1
            return stop_at is not None and seen > stop_at

        numerics = Numerics()
        record = RunRecord(spec=self.run, numerics=numerics, corpus=str(self.corpus.directory), begun_at=2e9)
        made = RunFolder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        made.begin(record, self.corpus)
        both = Trackers(made.curve(), tracker)
        result = train(self.run, self.corpus, numerics, directory=folder, tracker=both, should_stop=stop)
        both.flush()
        if result.status != "interrupted":
            made.end(result)
        return result

    def ended(self, folder: Path) -> Scored:
        """Trained as `scaling train` does, to its scored end."""
        followed = FollowedRun(self.workspace, self.made, lambda _: None)
        followed.starting(self.run.key, folder)
        scored = followed.ended(self.trained(folder, followed))
        assert scored is not None
        return scored
