from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.errors import UserError
from scaling.fits.together import fit_table
from scaling.observation import COLUMNS
from scaling.table import budget_levels, read_table
from scaling.table_rows import listed


def _frame(**changes: list[object]) -> pd.DataFrame:
    columns: dict[str, list[object]] = {
        "params": [1e6, 2e6, 3e6, 4e6],
        "tokens": [1e8, 1e8, 2e8, 3e8],
        "loss": [3.0, 2.9, 2.8, 2.7],
    }
    return pd.DataFrame(columns | changes)


def test_bad_rows_are_rejected_by_number_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(
        "N,D,loss\n1e6,1e8,3\n1e6,2e8,\n2e6,0,2.9\n1e6,1e8,3\n3e6,1e8,inf\n-5,1e8,3\nbig,1e8,3\n4e6,1e8,2.7,extra\n"
        "\n5e6,1e8,nan\n6e6,1e8,-1\n7e6,1e8,2.5\n"
    )
    counts = read_table(path).counts
    assert (counts.rows, counts.used) == (11, 2)
    assert {row.row: row.reason for row in counts.rejected} == {
        2: "loss is empty",
        3: "tokens 0",
        4: "same as row 1",
        5: "loss is infinite",
        6: "params -5",
        7: "params 'big' is not a number",
        8: "has 4 fields where the header has 3",
        9: "loss is NaN",
        10: "loss -1",
    }


def test_missing_columns_are_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"no column for tokens.*params, loss.*--columns tokens=COLUMN"):
        read_table(_frame().drop(columns="tokens"))


def test_columns_of_any_name_can_be_given(tmp_path: Path) -> None:
    frame = _frame().rename(columns={"params": "size", "tokens": "seen", "loss": "nll"})
    frame.to_parquet(tmp_path / "runs.parquet")
    table = read_table(tmp_path / "runs.parquet", columns={"params": "size", "tokens": "seen", "loss": "nll"})
    assert len(table) == 4
    with pytest.raises(UserError, match="columns: loss=wrong names no column"):
        read_table(frame, columns={"loss": "wrong"})


def test_missing_flops_are_6nd_without_overflow() -> None:
    table = read_table(_frame(params=[10**12] * 4, tokens=[10**13, 2 * 10**13, 3 * 10**13, 4 * 10**13]))
    assert table.flops_convention == "6nd"
    assert table.flops.tolist() == pytest.approx([6e25, 1.2e26, 1.8e26, 2.4e26])


def test_flops_within_a_percent_of_6nd_are_6nd_and_others_exact() -> None:
    frame = _frame()
    six = 6 * frame.params * frame.tokens
    assert read_table(frame.assign(flops=six * 1.004)).flops_convention == "6nd"
    exact = read_table(frame.assign(flops=six * 1.3))
    assert (exact.flops_convention, round(exact.flops_per_param_token, 6)) == ("exact", 7.8)
    assert read_table(frame.assign(flops=six * 1.3), flops_convention="6nd").flops_per_param_token == 6


def test_budgets_planned_in_6nd_are_not_smeared_by_exact_flops() -> None:
    params = np.array([1e5, 2e5, 4e5, 8e5] * 2)
    tokens = np.repeat([1e12, 4e12], 4) / (6 * params)
    frame = pd.DataFrame({"params": params, "tokens": tokens, "loss": np.linspace(4, 3, 8)})
    table = read_table(frame.assign(flops_exact=6 * params * tokens * np.linspace(1, 2, 8)))
    assert table.flops_convention == "6nd"
    assert [note.code for note in table.diagnostics] == ["flops-convention"]


def test_hold_out_and_diverged_runs_of_a_study_are_not_fitted() -> None:
    study = pd.DataFrame(index=range(5), columns=list(COLUMNS)).assign(
        run_key=list("abcde"),
        role=["fit", "fit", "fit", "fit", "hold-out"],
        status=["finished", "finished", "finished", "diverged", "finished"],
        phase="final",
        params_total=[1, 2, 3, 4, 5],
        params_nonembedding=[7, 8, 9, 10, 11],
        tokens=[10, 20, 30, 40, 50],
        loss_nats=[4.0, 3.9, 3.8, math.nan, 3.0],
    )
    table = read_table(study, params_convention="nonembedding", flops_convention="6nd")
    assert table.params.tolist() == [7, 8, 9]
    assert table.labels["run_key"].tolist() == ["a", "b", "c"]
    assert [(row.row, row.reason) for row in table.counts.rejected] == [(4, "diverged")]


def test_losses_before_the_cooldown_are_left_out_beside_losses_after_it() -> None:
    table = read_table(_frame(phase=["stable", "cooled", "final", "final"]))
    assert table.loss.tolist() == [2.9, 2.8, 2.7]


def test_a_perplexity_is_noticed() -> None:
    assert read_table(_frame(loss=[40.0, 35.0, 33.0, 30.0])).diagnostics[0].code == "loss-unit"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"params,params,tokens,loss\n1,1,1,1\n", "'params' appears twice"),
        (b"params,tokens,loss\n", "none of the 0 rows"),
    ],
)
def test_a_file_that_is_no_table_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_a_broken_parquet_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="can't be read as parquet"):
        read_table(path)


numbers = st.sampled_from([1e2, 1e3, 2e3, 1e5, 3e6, 1e9, 1e12, 1e20, 1e29])


@settings(max_examples=25)
@given(st.lists(st.tuples(numbers, numbers, st.floats(1e-6, 1e6)), min_size=1, max_size=20))
def test_any_positive_numbers_can_be_fitted_or_refused(rows: list[tuple[float, float, float]]) -> None:
    fit = fit_table(pd.DataFrame(rows, columns=["params", "tokens", "loss"]), bootstrap=20)
    assert fit.model_dump_json()
    assert fit.summary()


def test_a_continuum_of_compute_is_not_one_budget() -> None:
    flops = np.geomspace(1e18, 1e20, 60)
    levels = budget_levels(flops)
    assert all(np.ptp(np.log(flops[levels == level])) < 0.2 for level in range(levels.max() + 1))
    assert budget_levels(np.array([4e18, 1e18, 1.05e18, 4.1e18])).tolist() == [1, 0, 0, 1]


def test_replicates_with_the_same_rounded_loss_are_not_duplicates() -> None:
    twice = _frame(params=[1e6] * 4, tokens=[1e8] * 4, loss=[3.0, 3.0, 3.0, 2.9])
    assert [row.reason for row in read_table(twice).counts.rejected] == ["same as row 1", "same as row 1"]
    assert read_table(twice.assign(seed=[0, 1, 1, 2])).counts.used == 3
    assert read_table(twice.assign(run_key=list("abcd"))).counts.used == 4


def test_a_run_no_better_than_guessing_is_rejected_as_diverged() -> None:
    counts = read_table(_frame(loss=[3.0, 14.2, 2.8, 2.7])).counts
    assert [row.row for row in counts.rejected] == [2] and "diverged" in counts.rejected[0].reason
    small = read_table(_frame(loss=[3.0, 6.95, 2.8, 2.7]).assign(vocabulary=1024)).counts
    assert (
        small.rejected[0].reason == "loss 6.95 is no better than a uniform guess over its 1024 tokens (6.931): diverged"
    )
    assert read_table(_frame(loss=[3.0, 6.95, 2.8, 2.7]).assign(vocabulary=50_000)).counts.used == 4


def test_each_fitted_run_knows_its_row() -> None:
    table = read_table(_frame(loss=[3.0, math.nan, 2.8, 2.7], params=[9e6, 2e6, 3e6, 1e6]))
    assert sorted(table.rows.tolist()) == [1, 3, 4]
    by_row = dict(zip(table.rows.tolist(), table.params.tolist(), strict=True))
    assert by_row == {1: 9e6, 3: 3e6, 4: 1e6}


def test_lists_of_rows_read_as_sentences() -> None:
    assert listed([3]) == "row 3"
    assert listed([9, 3, 7]) == "rows 3, 7 and 9"
    assert listed(np.arange(1, 12)) == "rows 1, 2, 3, 4, 5, 6, 7, 8 and 3 more"
