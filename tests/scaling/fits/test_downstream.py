"""Accuracy in two steps: a known truth found again, what is said not to be predictable, and the OLMo ladder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.errors import UserError
from scaling.fits.downstream import DownstreamFit, TaskRuns, fit_downstream
from scaling.fits.estimate import estimate
from scaling.laws.accuracy_sigmoid import ACCURACY_SIGMOID
from scaling.laws.chinchilla import CHINCHILLA

LOSS_THETA = np.array([30.0, 90.0, 0.45, 0.21, 0.23])
ACCURACY_THETA = np.array([-0.74, 0.9, 9.0, 1.0])
TARGET = (1.3e10, 5e12)

LADDER = {
    "mmlu_avg_test_5shot": (0.7502, 0.5161),
    "hellaswag_val_5shot": (0.6532, 0.8319),
    "arc_challenge_test_5shot": (0.7833, 0.6381),
    "arc_easy_test_5shot": (0.5931, 0.8717),
    "piqa_val_5shot": (0.8748, 0.8296),
    "csqa_val_5shot": (0.6617, 0.7410),
    "socialiqa_val_5shot": (0.9916, 0.6160),
    "openbookqa_test_5shot": (1.2750, 0.4864),
}
"""Task loss of the 13B as OLMo-ladder's own step 1 predicts it (its step1_main.csv), and the accuracy it reached."""
PREDICTABLE = ("mmlu_avg_test_5shot", "piqa_val_5shot", "socialiqa_val_5shot")


def ladder(noise: float = 0.0, seed: int = 0) -> TaskRuns:
    """Four sizes at 20 to 200 tokens a parameter, as the OLMo ladder has them; noise in log loss and in accuracy."""
    rng = np.random.default_rng(seed)
    params, ratio = (x.ravel() for x in np.meshgrid([1.9e8, 3.7e8, 7.6e8, 1.3e9], [20.0, 40.0, 100.0, 200.0]))
    loss = CHINCHILLA.predict(LOSS_THETA, params, params * ratio) * np.exp(noise * rng.standard_normal(16))
    accuracy = ACCURACY_SIGMOID.predict(ACCURACY_THETA, loss) + noise * rng.standard_normal(16)
    return TaskRuns("made up", params, params * ratio, loss, accuracy)


def truth(params: float, tokens: float) -> tuple[float, float]:
    loss = float(CHINCHILLA.predict(LOSS_THETA, params, tokens))
    return loss, float(ACCURACY_SIGMOID.predict(ACCURACY_THETA, loss))


def test_noiseless_runs_are_chained_to_the_truth() -> None:
    """A perfect score at no loss is part of this truth: its b is 1."""
    forecast = fit_downstream(ladder(), bootstrap=20).predict(*TARGET)
    loss, accuracy = truth(*TARGET)
    assert forecast.task_loss.estimate == pytest.approx(loss, rel=1e-4)
    assert forecast.accuracy.estimate == pytest.approx(accuracy, abs=2e-3)
    assert forecast.predictable
    assert forecast.extrapolation_orders == pytest.approx(np.log10(13e9 * 5e12 / (1.3e9 * 2.6e11)), abs=1e-6)


def test_the_interval_holds_the_true_accuracy_at_a_hundred_times_the_compute() -> None:
    """Noise of 0.4%, 15 studies at 90%: 11 or more (10 or fewer: p = 0.01)."""
    inside = 0
    for seed in range(15):
        said = fit_downstream(ladder(0.004, seed), bootstrap=100).predict(*TARGET).accuracy
        assert said.low is not None and said.high is not None
        inside += said.low <= truth(*TARGET)[1] <= said.high
    assert inside >= 11


def test_the_interval_widens_with_distance() -> None:
    fit = fit_downstream(ladder(0.004), bootstrap=100)
    widths = []
    for factor in (1, 30, 1000):
        said = fit.predict(1.3e9 * factor**0.5, 2.6e11 * factor**0.5).accuracy
        assert said.low is not None and said.high is not None
        widths.append(said.high - said.low)
    assert widths[0] < widths[1]
    assert 0 <= said.low <= said.high <= 1


def test_checkpoints_join_step_two_alone() -> None:
    """Earlier points of a run lie on the sigmoid, not on the law of final losses."""
    ends = ladder(0.003)
    early = np.random.default_rng(1).uniform(1.0, 1.6, 16)
    accuracy = ACCURACY_SIGMOID.predict(ACCURACY_THETA, early)
    run = np.arange(16)
    both = TaskRuns(
        "made up",
        np.tile(ends.params, 2),
        np.concatenate((ends.tokens / 7, ends.tokens)),
        np.concatenate((early, ends.task_loss)),
        np.concatenate((accuracy, ends.accuracy)),
        np.tile(run, 2),
    )
    alone, joined = (fit_downstream(runs, bootstrap=50) for runs in (ends, both))
    assert joined.loss_theta == pytest.approx(alone.loss_theta)
    assert joined.largest_flops == alone.largest_flops
    assert joined.accuracy_theta != pytest.approx(alone.accuracy_theta, rel=1e-6)
    assert joined.accuracy_draws[:, 2].std() < alone.accuracy_draws[:, 2].std()


def test_runs_that_still_guess_are_not_predictable_however_flat_their_back_test() -> None:
    runs = ladder()
    guessing = 0.25 + 0.004 * np.random.default_rng(0).standard_normal(16)
    fit = fit_downstream(TaskRuns("hard", runs.params, runs.tokens, runs.task_loss, guessing), bootstrap=50)
    forecast = fit.predict(*TARGET)
    assert not forecast.predictable
    assert forecast.reason is not None and "still guessing" in forecast.reason


def test_a_task_in_which_larger_runs_fall_behind_is_flagged_by_its_drift() -> None:
    runs = ladder()
    late = runs.accuracy - 0.05 * np.maximum(0, np.log10(runs.flops / runs.flops.min()) - 1) ** 2
    lags = TaskRuns("lags", runs.params, runs.tokens, runs.task_loss, late)
    forecast = fit_downstream(lags, bootstrap=50).predict(*TARGET)
    assert not forecast.predictable
    assert forecast.reason is not None and "points a decade" in forecast.reason


def test_without_a_cut_that_leaves_a_law_below_it_there_is_no_interval() -> None:
    runs = ladder()
    few = runs.rows(np.array([0, 1, 2, 5, 6, 7, 8, 10]))
    forecast = fit_downstream(few, bootstrap=20).predict(*TARGET)
    assert forecast.accuracy.low is None and forecast.accuracy.high is None
    assert not forecast.predictable and forecast.reason is not None and "add small runs" in forecast.reason


def test_what_is_no_measurement_is_named_by_row() -> None:
    runs = ladder()
    with pytest.raises(UserError, match=r"task x, row 3: accuracy 51\.6 must be a share from 0 to 1"):
        TaskRuns("x", *(np.full(4, 1.0),) * 3, np.array([0.3, 0.4, 51.6, 0.5]))
    with pytest.raises(UserError, match="task x: tokens must be one number for each of 16 rows"):
        TaskRuns("x", runs.params, runs.tokens[:3], runs.task_loss, runs.accuracy)
    one_size = TaskRuns("x", np.full(16, 1e9), runs.tokens, runs.task_loss, runs.accuracy)
    with pytest.raises(UserError, match="task x: the runs have 1 distinct sizes"):
        fit_downstream(one_size)


def published(shared_data: Path, task: str, metric: str, mode: str) -> pd.DataFrame:
    table = pd.read_csv(shared_data / "published" / "olmo_ladder_step1.csv")
    return table[(table["task"] == task) & (table["metric"] == metric) & (table["mode"] == mode)].astype(
        {"n_params": float, "tokens": float}
    )


@pytest.mark.shared
def test_the_ladders_c4_law_is_reproduced_and_is_3_8_percent_low_at_13b(shared_data: Path) -> None:
    """12.48/N^0.10 + 33.48/D^0.16 + 0.93, of Bhagia et al."""
    train, large = (published(shared_data, "c4_en", "c4", mode) for mode in ("train", "eval"))
    found = estimate(
        CHINCHILLA, (train["n_params"].to_numpy(), train["tokens"].to_numpy()), train["value"].to_numpy(), 1e-3
    )
    assert found.theta == pytest.approx([12.48, 33.48, 0.9344, 0.1036, 0.1620], abs=5e-3)
    error = CHINCHILLA.predict(found.theta, large["n_params"], large["tokens"]) / large["value"] - 1
    assert error.to_numpy() == pytest.approx([-0.0198, -0.0383], abs=1e-4)


@pytest.fixture(scope="module")
def ladder_fits(shared_data: Path) -> dict[str, DownstreamFit]:
    fits = {}
    for task in LADDER:
        loss, accuracy = (published(shared_data, task, metric, "train") for metric in ("rc_bpb", "rc_acc"))
        columns = (loss["n_params"], loss["tokens"], loss["value"], accuracy["value"])
        fits[task] = fit_downstream(TaskRuns(task, *(column.to_numpy() for column in columns)), bootstrap=200)
    return fits


@pytest.mark.shared
def test_the_ladders_task_losses_at_13b_are_reproduced(ladder_fits: dict[str, DownstreamFit]) -> None:
    for task, (loss, _) in LADDER.items():
        said = ladder_fits[task].predict(13_202_396_160, 5_000_088_518_656)
        assert said.task_loss.estimate == pytest.approx(loss, abs=3e-4), task


@pytest.mark.shared
def test_tasks_called_predictable_are_and_every_interval_holds(
    ladder_fits: dict[str, DownstreamFit], shared_data: Path
) -> None:
    """Eight tasks at 7B and 13B, 200 times the compute of the largest fitted run. From final points alone, which is all
    this table has, three tasks are called predictable and are off by 0.2 to 5.7 points; the others by 3.3 to 9.6."""
    half_widths = []
    for task, (_, reached) in LADDER.items():
        actual = published(shared_data, task, "rc_acc", "eval")
        for _, row in actual.iterrows():
            said = ladder_fits[task].predict(row["n_params"], row["tokens"])
            assert said.accuracy.low is not None and said.accuracy.high is not None
            assert said.accuracy.low <= row["value"] <= said.accuracy.high, task
            half_widths.append((said.accuracy.high - said.accuracy.low) / 2)
        assert said.predictable == (task in PREDICTABLE)
        assert row["value"] == pytest.approx(reached, abs=5e-5)
        if said.predictable:
            assert said.accuracy.estimate == pytest.approx(reached, abs=0.058)
    assert np.median(half_widths) < 0.13
