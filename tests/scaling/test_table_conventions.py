"""Tables whose rows were not measured alike: told with counts and rows, refused where no law can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.fits.together import fit_table
from scaling.simulation import IsoflopDesign, simulate_isoflop
from scaling.table import read_table


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Twenty runs on four lines at a lab's scale."""
    truth = np.array([482.01, 2085.43, 1.81686, 0.34781, 0.36585])
    return simulate_isoflop(truth, IsoflopDesign(4, 5, 1e19), 0.003, np.random.default_rng(0))


def _told(frame: pd.DataFrame, **options: object) -> dict[str, tuple[str, str]]:
    """Code to (severity, message) of what reading the table tells."""
    table = read_table(frame, **options)  # type: ignore[arg-type]
    return {note.code: (note.severity, note.message) for note in table.diagnostics}


def test_a_table_measured_in_one_way_has_nothing_to_tell(runs: pd.DataFrame) -> None:
    assert _told(runs) == {}
    same = runs.assign(tokenizer="bpe", dataset="web", context=2048, architecture="llama", run=range(len(runs)))
    assert _told(same) == {}


@pytest.mark.parametrize("column", ["tokenizer_key", "dataset_name", "corpus", "metric"])
def test_losses_of_two_kinds_are_refused_with_their_counts(runs: pd.DataFrame, column: str) -> None:
    severity, message = _told(runs.assign(**{column: ["first"] * 12 + ["second"] * 8}))["mixed-sources"]
    assert severity == "refusal"
    assert f"column {column}: first 12, second 8" in message
    fit = fit_table(runs.assign(**{column: ["first"] * 12 + ["second"] * 8}), bootstrap=0)
    assert fit.parametric.status == fit.isoflop.status == "refused"
    assert fit.parametric.reason == message
    assert message in fit.summary()


@pytest.mark.parametrize("column", ["context", "architecture"])
def test_runs_that_may_not_follow_one_law_are_fitted_with_a_warning(runs: pd.DataFrame, column: str) -> None:
    mixed = runs.assign(**{column: ["1024"] * 10 + ["4096"] * 10})
    assert _told(mixed)["mixed-sources"][0] == "warning"
    assert fit_table(mixed, bootstrap=0).parametric.status == "ok"


@pytest.mark.shared
def test_gadres_three_data_sets_are_not_fitted_as_one(shared_data: Path) -> None:
    runs = pd.read_csv(shared_data / "published" / "gadre_overtraining.csv")
    columns = {"params": "N", "tokens": "D", "loss": "loss_openlm"}
    severity, message = {n.code: (n.severity, n.message) for n in read_table(runs, columns=columns).diagnostics}[
        "mixed-sources"
    ]
    counts = runs["dataset_name"].value_counts()
    assert severity == "refusal"
    assert all(f"{name} {count}" in message for name, count in counts.iloc[:4].items())
    one = runs[runs["dataset_name"] == "rpj"]
    assert fit_table(one, columns=columns, bootstrap=0).parametric.status == "ok"


@pytest.mark.shared
def test_a_grid_of_learning_rates_is_not_taken_for_replicates(shared_data: Path) -> None:
    runs = pd.read_csv(shared_data / "published" / "steplaw_dense_lr_bs_loss.csv")
    columns = {"params": "N", "tokens": "D", "loss": "smooth loss"}
    assert "keep the lowest loss" in _told(runs, columns=columns)["tuning-grid"][1]
    best = runs.loc[runs.groupby(["N", "D"])["smooth loss"].idxmin()]
    assert "tuning-grid" not in _told(best, columns=columns)


def test_parameters_counted_otherwise_than_said_are_noticed(runs: pd.DataFrame) -> None:
    other = runs["params"] * 0.8
    whole = runs.assign(params=other, params_nonembedding=other)
    severity, message = _told(whole)["params-convention"]
    assert severity == "warning" and "--params-convention nonembedding" in message
    assert _told(whole, params_convention="nonembedding") == {}


def test_rows_of_two_parameter_counts_are_refused_by_number(runs: pd.DataFrame) -> None:
    nonembedding = runs["params"] * 0.8
    mixed = runs.assign(params_nonembedding=nonembedding)
    mixed.loc[[2, 9], "params"] = nonembedding[[2, 9]]
    severity, message = _told(mixed)["mixed-conventions"]
    assert severity == "refusal"
    assert "nonembedding parameters in 2 of 20 rows (rows 3 and 10)" in message


def test_parameters_that_are_the_same_in_two_conventions_are_no_mixture(runs: pd.DataFrame) -> None:
    assert _told(runs.assign(params_total=runs["params"], params_with_head=runs["params"])) == {}


def test_flops_in_two_ratios_to_6nd_at_the_same_sizes_are_noticed_by_row(runs: pd.DataFrame) -> None:
    flops = 6 * runs["params"] * runs["tokens"]
    flops.iloc[[1, 7, 13]] *= 1.4
    severity, message = _told(runs.assign(flops=flops))["mixed-conventions"]
    assert severity == "warning"
    assert "1 times 6ND in 17 rows and 1.4 times in 3 of the same sizes (rows 2, 8 and 14)" in message


def test_exact_flops_that_change_with_size_are_no_mixture(runs: pd.DataFrame) -> None:
    smooth = 6 * runs["params"] * runs["tokens"] * (1 + 0.5 * (runs["params"] / runs["params"].min()) ** -0.5)
    assert "mixed-conventions" not in _told(runs.assign(flops=smooth))
    small = runs["params"] < runs["params"].median()
    stepped = 6 * runs["params"] * runs["tokens"] * np.where(small, 1.5, 1.1)
    assert "mixed-conventions" not in _told(runs.assign(flops=stepped))


def test_a_count_in_billions_is_noticed(runs: pd.DataFrame) -> None:
    flops = 6 * runs["params"] * runs["tokens"]
    message = _told(runs.assign(flops=flops, tokens=runs["tokens"] / 1e9).loc[runs["tokens"] > 1e9])["flops-scale"][1]
    assert "in units of 1e9" in message


@pytest.mark.parametrize(
    ("column", "convert", "severity", "part"),
    [
        ("val_ppl", np.exp, "warning", "perplexity by its name"),
        ("loss", lambda loss: np.exp(2 * loss), "warning", "above a uniform guess"),
        ("bpb", lambda loss: loss / 0.6931 / 4.3, "warning", "multiply by 0.6931 and by the bytes"),
        ("loss", lambda loss: loss / 40, "warning", "below any text's entropy"),
        ("accuracy", lambda loss: 1 / loss, "refusal", "rises with compute"),
        ("error", lambda loss: 1 - 1 / loss, None, ""),
    ],
)
def test_losses_that_are_not_nats_are_recognised_with_the_conversion(
    runs: pd.DataFrame, column: str, convert: object, severity: str | None, part: str
) -> None:
    frame = runs.assign(loss=convert(runs["loss"])).rename(columns={"loss": column})  # type: ignore[operator]
    told = _told(frame, columns={"loss": column})
    assert told.get("loss-unit", (None, ""))[0] == severity
    assert part in told.get("loss-unit", (None, ""))[1]


def test_a_loss_that_is_the_column_of_bits_per_byte_is_recognised(runs: pd.DataFrame) -> None:
    assert "equals bits_per_byte" in _told(runs.assign(bits_per_byte=runs["loss"]))["loss-unit"][1]
    assert _told(runs.assign(bits_per_byte=runs["loss"] / 3)) == {}


def test_the_words_of_a_name_decide_not_its_letters(runs: pd.DataFrame) -> None:
    frame = runs.rename(columns={"loss": "accumulated_loss"})
    assert _told(frame, columns={"loss": "accumulated_loss"}) == {}
