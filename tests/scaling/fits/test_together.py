from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling import laws
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import disagreement, fit_table
from scaling.laws.chinchilla import CHINCHILLA
from scaling.prediction import predict
from scaling.record import Interval
from scaling.simulation import CurveDesign, random_small_truth, simulate_curves

Study = tuple[np.ndarray, pd.DataFrame]


def test_the_order_of_rows_and_the_kind_of_file_change_nothing(laptop_study: Study, tmp_path: Path) -> None:
    _, runs = laptop_study
    fit = fit_table(runs, bootstrap=50)
    assert fit_table(runs.sample(frac=1, random_state=1), bootstrap=50).key == fit.key
    runs.to_csv(tmp_path / "runs.csv", index=False)
    runs.to_parquet(tmp_path / "runs.parquet")
    assert fit_table(tmp_path / "runs.csv", bootstrap=50).key == fit.key
    assert fit_table(tmp_path / "runs.parquet", bootstrap=50).key == fit.key
    assert fit_table(runs, bootstrap=50, seed=1).key != fit.key


def test_a_fit_survives_its_json(laptop_study: Study) -> None:
    fit = fit_table(laptop_study[1], bootstrap=1200)
    again = Fit.model_validate_json(fit.model_dump_json())
    assert again == fit and again.key == fit.key
    assert len(fit.parametric.draws) == len(fit.isoflop.draws) == 1000


def test_summary_says_what_was_fitted_and_what_was_not(laptop_study: Study) -> None:
    runs = laptop_study[1]
    bad = pd.DataFrame({"params": [1e5], "tokens": [0], "loss": [3.0]})
    text = fit_table(pd.concat([runs, bad]), bootstrap=100).summary()
    assert "15 of 16 rows fitted" in text
    assert "1 row can't be used: 16 (tokens 0)" in text
    assert "N* ~ C^" in text and "intervals at 90%" in text
    assert max(map(len, text.splitlines())) <= 160
    one_horizon = runs.assign(tokens=20 * runs["params"])
    assert "law       refused: alpha and beta can't be told apart" in fit_table(one_horizon).summary()


def test_only_the_approach_asked_for_is_fitted(laptop_study: Study) -> None:
    fit = fit_table(laptop_study[1], methods=("isoflop",), bootstrap=50)
    assert (fit.parametric.status, fit.isoflop.status) == ("refused", "ok")
    assert not any(note.severity == "refusal" for note in fit.diagnostics)


def test_intervals_of_the_exponent_that_do_not_meet_are_reported() -> None:
    low, middle, high = (Interval(estimate=a, low=a - 0.05, high=a + 0.05) for a in (0.4, 0.48, 0.6))
    assert disagreement(low, middle) is None
    assert disagreement(None, high) is None
    found = disagreement(low, high)
    assert found is not None and "0.400 [0.350, 0.450] by the law, 0.600 [0.550, 0.650]" in found.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"huber_delta": 0.0}, "huber_delta is 0.0"),
        ({"bootstrap": 3}, "bootstrap is 3"),
        ({"level": 95}, "level is 95"),
        ({"methods": ("spline",)}, "methods has 'spline'"),
        ({"params_convention": "all"}, "params_convention is 'all'"),
    ],
)
def test_options_out_of_range_are_one_clear_line(laptop_study: Study, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_table(laptop_study[1], **options)  # type: ignore[arg-type]


def test_no_bootstrap_means_no_intervals(laptop_study: Study) -> None:
    fit = fit_table(laptop_study[1], bootstrap=0)
    assert fit.parametric.n_exponent is not None and fit.isoflop.n_exponent is not None
    assert fit.parametric.n_exponent.low is None and fit.isoflop.n_exponent.low is None
    assert fit.parametric.draws == fit.isoflop.draws == ()


@pytest.mark.parametrize("name", ["kaplan", "skaling", "over-trained"])
def test_any_law_of_loss_fits_a_table_and_prints_as_itself(laptop_study: Study, name: str) -> None:
    fit = fit_table(laptop_study[1], law=name, methods=("parametric",), bootstrap=50)
    law = laws.get(name)
    assert fit.parametric.law == name
    assert tuple(fit.parametric.parameters) == law.NAMES
    assert fit.parametric.n_exponent is not None and fit.parametric.n_exponent.low is not None
    assert Fit.model_validate_json(fit.model_dump_json()) == fit
    text = fit.summary()
    assert f"law       {law.formula}" in text
    assert max(map(len, text.splitlines())) <= 160


def test_constants_whose_unit_depends_on_an_exponent_stand_together_in_the_summary(laptop_study: Study) -> None:
    fit = fit_table(laptop_study[1], methods=("parametric",), bootstrap=50)
    lines = fit.summary().splitlines()
    start = lines.index("law       L = E + A·N^−α + B·D^−β")
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["E", "α", "β"]
    assert lines[start + 4].split(" · ")[0].split()[0] == "A"


def test_a_law_without_a_compute_optimum_is_refused_with_those_that_have_one(laptop_study: Study) -> None:
    with pytest.raises(
        UserError, match=r"law 'm4', of x, has no compute optimum.*: chinchilla, kaplan, over-trained, skaling"
    ):
        fit_table(laptop_study[1], law="m4")


def test_as_many_runs_as_constants_are_refused() -> None:
    params, tokens = [1e6, 4e6, 1e7, 1e6, 4e6, 1e7], [1e8, 4e8, 1e9, 1e9, 1e8, 4e8]
    loss = CHINCHILLA.predict([400, 400, 1.7, 0.34, 0.28], params, tokens)
    fit = fit_table(pd.DataFrame({"params": params, "tokens": tokens, "loss": loss}), law="skaling", bootstrap=0)
    assert fit.parametric.reason is not None
    assert fit.parametric.reason.startswith("6 usable runs can't carry the 6 constants of the law")


def test_a_fit_keeps_which_runs_share_a_trunk() -> None:
    rng = np.random.default_rng(0)
    theta, middle = random_small_truth(rng)
    runs = simulate_curves(theta, CurveDesign(sizes=8, middle_flops=middle, points=4, length=20), 0.01, rng)
    forecasts = []
    for table in (runs.drop(columns="trunk_key"), runs):
        fit = fit_table(table, bootstrap=20, diagnose=False)
        assert len(set(fit.drift.trunks)) == (8 if "trunk_key" in table else 0)
        forecasts.append(predict(Fit.model_validate_json(fit.model_dump_json()), flops=100 * middle).loss)
    assert forecasts[0] != forecasts[1]
