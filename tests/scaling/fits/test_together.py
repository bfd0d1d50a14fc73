from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import disagreement, fit_table
from scaling.record import Interval

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
        ({"methods": ("envelope",)}, "methods has 'envelope'"),
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
