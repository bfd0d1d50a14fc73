"""What data can't support is said with the reason and with runs that do cure it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scaling.fit import Cure, Diagnostic
from scaling.fits.identifiability import parametric_refusal
from scaling.fits.parametric import fit_parametric
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.simulation import CurveDesign, IsoflopDesign, random_small_truth, simulate_curves, simulate_isoflop
from scaling.table import read_table


def _runs(theta: object, params: object, tokens: object, noise: float, seed: int = 0) -> pd.DataFrame:
    params, tokens = np.asarray(params, float), np.asarray(tokens, float)
    loss = CHINCHILLA.predict(theta, params, tokens)  # type: ignore[arg-type]
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss": loss})


def _found(runs: pd.DataFrame, **options: object) -> dict[str, Diagnostic]:
    _, notes = fit_parametric(read_table(runs), bootstrap=200, **options)  # type: ignore[arg-type]
    return {note.code: note for note in notes}


def _with(runs: pd.DataFrame, cure: Cure, theta: object, noise: float) -> pd.DataFrame:
    """The table after the cure was trained."""
    params, tokens = ([getattr(run, name) for run in cure.runs] for name in ("params", "tokens"))
    return pd.concat([runs, _runs(theta, params, tokens, noise, seed=1)], ignore_index=True)


sizes = st.lists(st.sampled_from([1e6, 1.1e6, 2e6, 5e6, 3e7, 1e9]), min_size=1, max_size=12)


@settings(max_examples=100)
@given(sizes, st.data())
def test_with_the_runs_of_its_cure_a_refused_table_is_refused_no_more(params: list[float], data: st.DataObject) -> None:
    law_of_tokens = data.draw(st.sampled_from(["ratio", "power", "any"]))
    if law_of_tokens == "any":
        choice = st.sampled_from([1e7, 1.2e7, 5e7, 2e8, 1e10])
        tokens = data.draw(st.lists(choice, min_size=len(params), max_size=len(params)))
    else:
        tokens = [20 * n if law_of_tokens == "ratio" else 3 * n**1.2 for n in params]
    refusal = parametric_refusal(np.array(params), np.array(tokens))
    assume(refusal is not None)
    assert refusal is not None
    new = np.array([[run.params, run.tokens] for run in refusal.cure.runs])
    assert parametric_refusal(np.append(params, new[:, 0]), np.append(tokens, new[:, 1])) is None
    assert refusal.cure.flops == pytest.approx(6 * (new[:, 0] * new[:, 1]).sum())
    assert "\n" not in refusal.reason and "FLOPs" in refusal.reason


def test_a_refused_fit_carries_its_cure_as_runs_to_be_planned() -> None:
    params = np.geomspace(1e6, 1e8, 8)
    fit = fit_table(_runs([400, 400, 1.7, 0.34, 0.28], params, 20 * params, 0.003), bootstrap=0)
    refusal = next(note for note in fit.diagnostics if note.code == "parametric")
    assert refusal.cure is not None
    assert [run.tokens / run.params for run in refusal.cure.runs] == pytest.approx([5] * 3 + [80] * 3, rel=0.01)
    told = fit.answer()["diagnostics"][0]["cure"]
    assert set(told) == {"runs", "flops"} and set(told["runs"][0]) == {"params", "tokens"}


def test_training_the_cure_of_one_horizon_identifies_the_exponents() -> None:
    theta, params = [400, 400, 1.7, 0.34, 0.28], np.geomspace(1e6, 1e8, 12)
    runs = _runs(theta, params, 20 * params, 0.002)
    cure = parametric_refusal(runs["params"].to_numpy(), runs["tokens"].to_numpy()).cure  # type: ignore[union-attr]
    fit, _ = fit_parametric(read_table(_with(runs, cure, theta, 0.002)), bootstrap=200)
    exponent = fit.n_exponent
    assert exponent is not None and exponent.low is not None and exponent.high is not None
    assert exponent.low < 0.28 / 0.62 < exponent.high
    assert exponent.high - exponent.low < 0.3


def test_a_term_that_the_runs_do_not_show_is_told_and_its_cure_shows_it() -> None:
    """Tokens so plentiful that what fewer would cost can't be seen: β is at its bound or its profile has no end."""
    theta, noise = [400, 1e4, 1.7, 0.34, 0.5], 0.003
    runs = _runs(theta, np.repeat(np.geomspace(1e6, 1e8, 5), 4), np.tile(np.geomspace(1e12, 1e13, 4), 5), noise)
    notes = _found(runs)
    told = {code for code in ("at-bound", "flat-profile", "wide-exponent") if code in notes}
    assert told & {"at-bound", "flat-profile"}
    cure = notes["at-bound" if "at-bound" in notes else "flat-profile"].cure
    assert cure is not None
    after, notes_after = fit_parametric(read_table(_with(runs, cure, theta, noise)), bootstrap=200)
    beta = after.parameters["beta"]
    assert beta.low is not None and beta.high is not None
    assert beta.low < 0.5 < beta.high and beta.high - beta.low < 0.3
    assert not {note.code for note in notes_after} & {"at-bound", "wide-exponent"}


def test_runs_too_small_to_show_where_loss_ends_say_so_and_what_it_takes() -> None:
    """Three budgets of noise 1%: E anywhere down to nothing fits as well."""
    rng = np.random.default_rng(0)
    theta, flops = random_small_truth(rng)
    note = _found(simulate_isoflop(theta, IsoflopDesign(3, 5, flops), 0.01, rng))["flat-profile"]
    assert "leaves E anywhere below" in note.message
    assert note.cure is not None
    assert all(6 * run.params * run.tokens > 3.9 * 4 * flops for run in note.cure.runs)


@pytest.mark.shared
def test_epochs_outliers_are_told_by_row(shared_data: Path) -> None:
    runs = pd.read_csv(shared_data / "published" / "epoch_chinchilla_245.csv")
    notes = _found(runs)
    assert notes["far-from-law"].message.startswith("rows 1, 2, 3 and 4 lie far from the law")
    assert notes["influential"].message.startswith("row 1 moves the answer by more than its standard error")
    assert notes["influential"].severity == "warning"
    kept = _found(runs[~runs["dropped_by_besiroglu"]])
    assert "influential" not in kept


def test_a_diverged_run_among_good_ones_is_found_by_its_row_and_its_cure_is_the_same_run() -> None:
    rng = np.random.default_rng(2)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(5, 7, flops), 0.003, rng)
    runs.loc[16, "loss"] *= 1.5
    note = _found(runs)["far-from-law"]
    assert note.message.startswith("row 17 lies far from the law")
    assert note.cure is not None
    (run,) = note.cure.runs
    assert (run.params, run.tokens) == pytest.approx((runs.loc[16, "params"], runs.loc[16, "tokens"]), rel=0.01)


def test_points_along_training_curves_are_not_taken_for_finished_runs() -> None:
    curves = simulate_curves(
        np.array([400.0, 400, 1.7, 0.34, 0.3]), CurveDesign(8, 1e18), 0.003, np.random.default_rng(0)
    )
    assert "240 of 240 rows are points along 8 runs" in _found(curves)["along-runs"].message
    assert "along-runs" not in _found(curves.assign(phase="cooled"))
    assert "along-runs" not in _found(curves.assign(trunk_key=""))


def test_of_thousands_of_runs_those_of_most_pull_are_left_out_in_turn() -> None:
    """Fifteen hundred runs: a leave-out of every one would take over ten seconds."""
    rng = np.random.default_rng(0)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(30, 50, flops, step=1.2), 0.003, rng)
    runs.loc[777, "loss"] *= 2.0
    started = time.process_time()
    note = _found(runs)["far-from-law"]
    assert time.process_time() - started < 8
    assert note.message.startswith("row 778 lies")


def test_sound_studies_are_left_in_peace() -> None:
    """Of ten studies of 96 runs none has a run called far from the law, influential or a term unseen."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        theta, flops = random_small_truth(rng)
        notes = _found(simulate_isoflop(theta, IsoflopDesign(8, 12, flops), 0.004, rng))
        assert not set(notes) & {"far-from-law", "at-bound", "wide-exponent"}, seed


def test_noiseless_runs_have_nothing_odd_about_them(laptop_study: tuple[np.ndarray, pd.DataFrame]) -> None:
    theta, runs = laptop_study
    exact = runs.assign(loss=CHINCHILLA.predict(theta, runs["params"], runs["tokens"]))
    assert not set(_found(exact)) & {"far-from-law", "influential", "at-bound", "flat-profile"}


def test_findings_that_cost_refits_can_be_left_out() -> None:
    rng = np.random.default_rng(0)
    theta, flops = random_small_truth(rng)
    runs = simulate_isoflop(theta, IsoflopDesign(3, 5, flops), 0.01, rng)
    assert {"flat-profile", "influential"} & set(_found(runs))
    assert not {"flat-profile", "influential"} & set(_found(runs, diagnose=False))
