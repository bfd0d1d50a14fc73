"""Whatever the table: a fit or one clear line, never another exception, never a warning, never NaN in the JSON."""

from __future__ import annotations

import datetime
import io
import json
import math
from contextlib import redirect_stdout
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scaling.cli.fit import fit as fit_command
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop

NAMES = st.sampled_from(
    ["params", "tokens", "loss", "flops", "N", "D", "L", "C", "params_total", "params_nonembedding", "loss_nats",
     "status", "role", "phase", "seed", "run_key", "trunk_key", "bits_per_byte", "budget", "vocabulary", "lr",
     "tokenizer", "dataset", "context", "architecture", "Δπ", "", " loss ", "Unnamed: 0"]
)  # fmt: skip
COUNTS = st.sampled_from([1e2, 1e3, 2e3, 1e5, 3e6, 1e9, 1e12, 1e20, 1e29])
ODD_CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=6),
    st.sampled_from([pd.NA, pd.NaT, np.float32(3.5), np.int64(7), np.bool_(True), Decimal("2.5"), Decimal("NaN"), 1j,
                     b"3.0", [3.0], np.array([3.0]), {"a": 1}, (1, 2), datetime.date(2024, 1, 1), pd.Timestamp("2024"),
                     pd.Timedelta("1s"), "1e6", "3,5", "1_000", "½", "٣", "-0", "0x10", " 2.5 ", "1e400"]),
)  # fmt: skip
GOOD_CELLS = st.one_of(COUNTS, st.floats(0.5, 12.0), st.integers(1, 10**12))


def check(fit: Fit) -> None:
    """What every fit promises, however odd its table."""
    assert fit.observations.used > 0
    assert fit.observations.used + len(fit.observations.rejected) <= fit.observations.rows
    assert Fit.model_validate_json(fit.model_dump_json()) == fit  # no NaN: it would come back as null
    json.dumps(fit.answer(), allow_nan=False)
    assert fit.summary()
    for approach in (fit.parametric, fit.isoflop):
        assert (approach.status == "refused") == bool(approach.reason)


def fitted_or_refused(source: object, **options: object) -> Fit | None:
    try:
        fit = fit_table(source, bootstrap=20, **options)  # type: ignore[arg-type]
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return None
    check(fit)
    return fit


@st.composite
def odd_frames(draw: st.DrawFn) -> pd.DataFrame:
    """Any columns of any cells, with the needed names as likely as the odd ones."""
    rows = draw(st.integers(0, 12))
    names = draw(st.lists(NAMES, max_size=8)) + draw(st.sampled_from([[], ["params", "tokens", "loss"]]))
    columns = [draw(st.lists(st.one_of(ODD_CELLS, GOOD_CELLS), min_size=rows, max_size=rows)) for _ in names]
    frame = pd.DataFrame({i: pd.Series(column, dtype=object) for i, column in enumerate(columns)})
    return frame.set_axis(pd.Index(names, dtype=object), axis=1)


@settings(max_examples=100)
@given(odd_frames())
def test_frames_of_any_columns_and_cells(frame: pd.DataFrame) -> None:
    fitted_or_refused(frame)


@st.composite
def damaged_studies(draw: st.DrawFn) -> pd.DataFrame:
    """A sound study in which some cells, rows and columns went wrong: the fit itself must carry what is left."""
    rng = np.random.default_rng(draw(st.integers(0, 50)))
    theta, flops = random_small_truth(rng)
    design = IsoflopDesign(draw(st.integers(1, 4)), draw(st.integers(1, 6)), flops)
    runs = simulate_isoflop(theta, design, draw(st.sampled_from([0.0, 0.005, 0.1, 1.0])), rng).astype(object)
    if draw(st.booleans()):
        runs["flops"] = 6 * runs["params"] * runs["tokens"] * draw(st.sampled_from([1.0, 1.3, 1e9]))
    for name in draw(st.lists(NAMES, max_size=2)):
        runs[name] = pd.Series([draw(ODD_CELLS) for _ in range(len(runs))], dtype=object)
    for _ in range(draw(st.integers(0, 6))):
        row, column = draw(st.integers(0, len(runs) - 1)), draw(st.sampled_from(list(runs.columns)))
        runs.iloc[row, runs.columns.get_loc(column)] = draw(
            st.one_of(st.sampled_from([0, -1, 1e-300, 1e-9, 1e9, 1e29, "", "nan", True, None]), st.floats(1, 1e30))
        )
    return runs.iloc[draw(st.permutations(range(len(runs))))] if draw(st.booleans()) else runs


@settings(max_examples=60)
@given(damaged_studies(), st.sampled_from([None, "exact", "6nd"]), st.sampled_from(["total", "nonembedding"]))
def test_studies_with_damage(runs: pd.DataFrame, flops_convention: str | None, params_convention: str) -> None:
    fitted_or_refused(runs, flops_convention=flops_convention, params_convention=params_convention)


TEXT_CELLS = st.one_of(
    st.sampled_from(["", "nan", "inf", "-1", "0", "1e400", "1e6", "2e8", "3.5", "3,5", "1e29", "1e-320", '"', "a,b",
                     "\x00", "True", "2024-01-01", "½", "1 000", "NULL", "#N/A"]),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.integers().map(str),
    st.text(max_size=8),
)  # fmt: skip


@st.composite
def odd_files(draw: st.DrawFn) -> bytes:
    """CSV as the world writes it: any delimiter, encoding, line end and header, and bytes that are no CSV at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    header = draw(st.one_of(st.just(["params", "tokens", "loss", "flops"]), st.lists(NAMES, min_size=1, max_size=6)))
    rows = draw(st.lists(st.lists(TEXT_CELLS, max_size=6), max_size=12))
    rows += [
        [repr(draw(COUNTS)), repr(draw(COUNTS)), repr(draw(st.floats(0.5, 12.0)))]
        for _ in range(draw(st.integers(0, 10)))
    ]
    text = end.join(delimiter.join(row) for row in [header, *rows])
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])), "replace")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_files())
@example(b"\xef\xbb\xbfparams;tokens;loss\r\n1e6;1e8;3\r\n")
@example(b"params,tokens,loss,flops\n1,1e-320,3,1e29\n")
@example(b"params,tokens,loss,flops\n" + b"\n".join(b"%d,%d,3.%d," % (i, 7**i, i) for i in range(1, 9)))
@example(b"params,tokens,loss\n" + b"\n".join(b"1e%d,1e%d,3.0" % (i, 30 - i) for i in range(1, 29)))
@example(b"params,tokens,loss\n" + b"9" * 5000 + b",1e8,3\n")
@example(b'params,tokens,loss\n"1e6,1e8,3\n')
def test_files_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    fitted_or_refused(path)


ODD_ARROW = st.sampled_from(
    [pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.decimal128(20, 3), pa.string(),
     pa.large_string(), pa.binary(), pa.timestamp("ns"), pa.timestamp("us", tz="UTC"), pa.date32(), pa.duration("ns"),
     pa.time64("us"), pa.null(), pa.list_(pa.float64()), pa.struct([("a", pa.int64())]),
     pa.dictionary(pa.int32(), pa.string())]
)  # fmt: skip


def _arrow_column(kind: pa.DataType, values: list[int]) -> pa.Array:
    if pa.types.is_list(kind):
        return pa.array([[float(value)] for value in values], kind)
    if pa.types.is_struct(kind):
        return pa.array([{"a": value} for value in values], kind)
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if pa.types.is_dictionary(kind):
        return pa.array([str(value) for value in values]).dictionary_encode()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.array([str(value) for value in values], kind)
    if pa.types.is_binary(kind):
        return pa.array([str(value).encode() for value in values], kind)
    if pa.types.is_boolean(kind):
        return pa.array([value % 2 == 0 for value in values], kind)
    if pa.types.is_float16(kind):
        return pa.array(np.array(values, dtype=np.float16), kind)
    if pa.types.is_decimal(kind):
        return pa.array([Decimal(value) for value in values], kind)
    return pa.array(values, pa.int64()).cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD_ARROW, min_size=3, max_size=5), st.lists(st.integers(1, 100), min_size=1, max_size=12))
def test_parquet_of_any_types(tmp_path: Path, kinds: list[pa.DataType], values: list[int]) -> None:
    names = ["params", "tokens", "loss", "flops", "status"][: len(kinds)]
    table = pa.table([_arrow_column(kind, values) for kind in kinds], names=names)
    pq.write_table(table, tmp_path / "runs.parquet")
    fitted_or_refused(tmp_path / "runs.parquet")


def test_parquet_with_a_column_twice_is_one_clear_line(tmp_path: Path) -> None:
    table = pa.table([pa.array([1.0])] * 4, names=["params", "tokens", "loss", "loss"])
    pq.write_table(table, tmp_path / "runs.parquet")
    with pytest.raises(UserError, match="loss"):
        fit_table(tmp_path / "runs.parquet")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    odd_files(),
    st.one_of(st.none(), st.text(max_size=20), st.just("params=N,tokens=D,loss=L")),
    st.sampled_from(["total", "nonembedding", "with-head", "both", ""]),
    st.sampled_from([None, "exact", "6nd", "5nd"]),
    st.sampled_from(["all", "parametric", "isoflop", "none"]),
    st.sampled_from([1e-3, 0.0, math.nan, -1.0, 1e6]),
    st.sampled_from([0, 20, 3]),
    st.sampled_from([0.9, 0.5, 1.0, math.nan]),
)
def test_the_command_with_any_file_and_options(
    tmp_path: Path, content: bytes, columns: str | None, params: str, flops: str | None, method: str, delta: float,
    bootstrap: int, level: float,
) -> None:  # fmt: skip
    """Exit 0 or 3 with one object of JSON, or a ``UserError`` (exit 2)."""
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            fit_command(
                str(path), columns=columns, params_convention=params, flops_convention=flops, method=method,
                huber_delta=delta, bootstrap=bootstrap, level=level, as_json=True,
            )  # fmt: skip
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return
    except typer.Exit as stop:
        assert stop.exit_code == 3

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert "observations" in json.loads(printed.getvalue(), parse_constant=refuse)
