"""Asking and telling, on losses that are known: no run is trained here."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
import pytest

from scaling.laws.power_lines import WeightDecay
from sweeps.tuning.asking import Asked, CellAsking, Outcome
from sweeps.tuning.settings import TuneSettings
from sweeps.tuning.space import Space, space_of
from sweeps.tuning.storage import TrialStore

TOKENS = 2**20


def space(**settings: object) -> Space:
    return space_of(TuneSettings(**settings), context=32, batch_tokens=256, decay=WeightDecay(absolute=0.1))


def loss_of(values: dict[str, float], share: float = 1.0) -> float:
    valley = 0.02 * math.log(values["learning_rate"] / 0.01) ** 2
    valley += 0.01 * math.log(values.get("global_batch_tokens", 256) / 512) ** 2
    return 3 + valley + (1 - share)


def finished(asked: Asked) -> Outcome:
    curve = [(round(share * TOKENS), loss_of(asked.values, share)) for share in (0.1, 0.25, 0.3, 0.5, 0.7)]
    return Outcome("finished", loss_of(asked.values), curve)


def asking(sampler: str = "tpe", **options: object) -> CellAsking:
    settings: dict[str, object] = {"seed": 1, "trials": 16, "tokens": TOKENS, "worst": 6.0, **options}
    return CellAsking(space(), sampler, **settings)  # type: ignore[arg-type]


def values_of(cell: CellAsking) -> list[dict[str, float]]:
    return [asked.values for asked, _ in cell.told]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_order_in_which_trials_end_changes_nothing(sampler: str) -> None:
    straight = asking(sampler, at_once=4)
    straight.advance(finished, lambda asked: None)
    # A worker ends trials at random: what is not yet ended is open.
    rng, muddled, ended = np.random.default_rng(0), asking(sampler, at_once=4), set[int]()
    while not muddled.done:
        muddled.advance(lambda a: finished(a) if a.number in ended else Outcome("open"), lambda asked: None)
        if muddled.open:
            ended.add(int(rng.choice([asked.number for asked in muddled.open])))
    assert values_of(muddled) == values_of(straight)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_it_comes_nearer_to_the_best_than_random_search(sampler: str) -> None:
    def best(kind: str, seed: int) -> float:
        cell = asking(kind, seed=seed, trials=24)
        cell.advance(finished, lambda asked: None)
        return min(outcome.loss or 9.0 for _, outcome in cell.told)

    assert np.mean([best(sampler, s) for s in range(4)]) < np.mean([best("random", s) for s in range(12)])


def test_a_trial_worse_than_half_of_those_before_is_pruned_at_half_of_its_tokens() -> None:
    cell = asking("random", trials=24, prune=True)
    cell.advance(finished, lambda asked: None)
    states = [outcome.state for _, outcome in cell.told]
    assert 6 <= states.count("pruned") <= 18
    assert all(asked.pruned_at is None or asked.pruned_at >= TOKENS / 2 for asked, _ in cell.told)
    best = min((asked for asked, _ in cell.told), key=lambda asked: loss_of(asked.values))
    assert best.pruned_at is None, "the best of all is not among them"
    assert all(trial.loss is None for trial in cell.as_trials(1e4) if trial.state == "pruned")


def test_a_diverged_trial_is_told_as_a_model_that_knows_nothing() -> None:
    cell = asking()
    cell.advance(lambda a: Outcome("diverged") if a.values["learning_rate"] > 0.03 else finished(a), lambda asked: None)
    told = cell.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert len(told) == 16
    assert {trial.value for trial in told if trial.params["learning_rate"] > 0.0301} == {6.0}


def test_the_storage_shows_what_was_told_and_goes_on_where_it_was(tmp_path: Path) -> None:
    cell = asking(prune=True)
    cell.trials = 7
    cell.advance(finished, lambda asked: None)
    TrialStore(tmp_path / "optuna").write("one", cell)
    cell.trials = 16
    cell.advance(finished, lambda asked: None)
    store = TrialStore(tmp_path / "optuna")
    store.write("one", cell)
    store.write("one", cell)
    shown = optuna.load_study(study_name="one", storage=store.storage).trials
    assert [trial.params for trial in shown] == [trial.params for trial in cell.study.trials]
    assert [trial.state for trial in shown] == [trial.state for trial in cell.study.trials]
    assert (tmp_path / "optuna").stat().st_mode & 0o077 == 0, "snapshots of a journal are pickles: its owner's alone"


def test_the_storage_may_be_a_database(tmp_path: Path) -> None:
    cell = asking()
    cell.advance(finished, lambda asked: None)
    store = TrialStore(tmp_path / "unused", f"sqlite:///{tmp_path / 'trials.db'}")
    store.write("one", cell)
    assert len(optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path / 'trials.db'}").trials) == 16


def test_every_tunable_has_values_that_a_run_can_have() -> None:
    everything = space(over=["adam_betas", "warmup", "weight_decay", "global_batch_tokens", "learning_rate"])
    assert everything.choices[0].name == "learning_rate", "the law's cube is of the first"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        values = everything.ask(study.ask())
        assert values["global_batch_tokens"] in (64, 128, 256, 512, 1024)
        assert 0.01 <= values["weight_decay"] <= 1
        assert 0.005 <= values["1-beta2"] <= 0.1
        assert 0.03 <= values["1-beta1"] <= 0.2
        assert everything.unasked(values)["log2_global_batch_tokens"] == math.log2(values["global_batch_tokens"] / 32)
