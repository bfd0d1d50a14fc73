"""fit_law: any law through any columns, its intervals, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from scaling import LawFit, fit_law
from scaling.errors import UserError
from scaling.laws.law import FloatArray, Law, LossLaw
from scaling.laws.saturating_power import SATURATING_POWER

TRUTH = (1.7, 60.0, 0.12)
FLOPS = np.geomspace(1e17, 1e21, 20)


def curve(seed: int, noise: float = 0.004) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    loss = SATURATING_POWER.predict(TRUTH, FLOPS) * np.exp(noise * rng.standard_normal(len(FLOPS)))
    return pd.DataFrame({"flops": FLOPS, "loss": loss})


def fit(data: pd.DataFrame, **options: object) -> LawFit:
    return fit_law("saturating-power", data, value="loss", columns={"x": "flops"}, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_intervals_hold_the_truth_and_a_new_measurement_as_often_as_they_say() -> None:
    """90% nominal over 300 curves (measured 88 to 89%): E, α, the curve at ten times the compute, a run there."""
    rng = np.random.default_rng(0)
    target = float(SATURATING_POWER.predict(TRUTH, 1e22))
    hits = []
    for seed in range(300):
        found = fit(curve(1000 + seed), bootstrap=200, seed=seed)
        inside = [
            interval.low <= truth <= interval.high  # type: ignore[operator]
            for interval, truth in ((found.parameters["E"], TRUTH[0]), (found.parameters["alpha"], TRUTH[2]))
        ]
        line, run = found.predict(1e22, scatter=False), found.predict(1e22)
        measured = target * math.exp(0.004 * rng.standard_normal())
        hits.append([*inside, line.low <= target <= line.high, run.low <= measured <= run.high])
    assert np.mean(hits, axis=0) == pytest.approx(0.9, abs=0.05)


def test_the_order_of_rows_changes_nothing_and_a_fit_survives_its_json() -> None:
    found = fit(curve(1), bootstrap=60)
    assert fit(curve(1).sample(frac=1, random_state=1), bootstrap=60) == found
    again = LawFit.model_validate_json(found.model_dump_json())
    assert again == found
    assert again.predict(FLOPS).estimate == pytest.approx(found.predict(FLOPS).estimate)


def test_predictions_keep_the_shape_of_their_inputs_and_carry_an_interval() -> None:
    found = fit(curve(2), bootstrap=60)
    estimate, low, high = found.predict(np.geomspace(1e16, 1e22, 6).reshape(2, 3))
    assert estimate.shape == low.shape == high.shape == (2, 3)
    assert (low < estimate).all() and (estimate < high).all()
    narrow = found.predict(FLOPS, scatter=False)
    assert (found.predict(FLOPS).high >= narrow.high).all()
    assert np.isnan(fit(curve(2), bootstrap=0).predict(1e20).low)


def test_a_law_of_the_loss_and_arrays_do_as_well_as_a_frame() -> None:
    params, tokens = np.meshgrid(np.geomspace(1e8, 1e10, 4), np.geomspace(1e9, 1e11, 4))
    loss = 1.8 + 480 * params**-0.35 + 2000 * tokens**-0.37
    data = {"n": params.ravel(), "tokens": tokens.ravel(), "loss": loss.ravel()}
    found = fit_law("chinchilla", data, value="loss", columns={"params": "n"}, bootstrap=0)
    assert found.parameters["alpha"].estimate == pytest.approx(0.35, rel=1e-3)
    assert found.fitted_range["params"] == pytest.approx((1e8, 1e10))


def test_least_squares_on_the_value_is_what_curve_fit_finds() -> None:
    from scipy.optimize import curve_fit

    data = curve(4, noise=0.02)
    found = fit(data, residuals="value", huber_delta=math.inf, bootstrap=0)
    x, y = data["flops"] / 1e19, data["loss"]
    best, _ = curve_fit(lambda x, e, a, alpha: e + a * x**-alpha, x, y, p0=(1.5, 0.4, 0.15))
    assert found.residuals == "value" and found.huber_delta is None
    assert found.parameters["E"].estimate == pytest.approx(best[0], rel=1e-4)
    assert found.parameters["alpha"].estimate == pytest.approx(best[2], rel=1e-4)
    assert found.objective == pytest.approx(0.5 * ((best[0] + best[1] * x ** -best[2] - y) ** 2).sum())


def test_held_constants_are_named_and_stay() -> None:
    found = fit(curve(3), fixed={"E": 1.7}, bootstrap=60)
    assert found.fixed == ("E",)
    assert found.parameters["E"].low == pytest.approx(1.7) == found.parameters["E"].high
    assert "held: E" in found.summary()


def test_rows_of_a_cluster_share_their_noise() -> None:
    """Ten pairs that scatter together tell less than twenty rows."""
    data = curve(6)
    alone, paired = (fit(data, clusters=c, bootstrap=300) for c in (np.arange(20), np.arange(20) // 2))

    def width(found: LawFit) -> float:
        interval = found.parameters["E"]
        assert interval.low is not None and interval.high is not None
        return interval.high - interval.low

    assert width(paired) > width(alone)


def test_the_summary_prints_the_law_and_what_is_weak() -> None:
    text = fit(curve(5), bootstrap=60).summary()
    assert text.splitlines()[0] == "loss of 20 rows · x 1e+17 to 1e+21"
    assert "law       y = E + A·x^−α" in text and "intervals at 90%" in text
    few = curve(5, noise=0.02)[:6]
    assert any(note.code == "weak-constant" for note in fit(few, bootstrap=200).diagnostics)


class Line(Law):
    """y = k·x, of no package."""

    name = "line"
    formula = "y = k·x"
    citation = "none"
    inputs = ("x",)
    parameters = SATURATING_POWER.parameters[1:2]

    def response_and_gradient(self, free: FloatArray, ln_inputs_Vn: FloatArray) -> tuple[FloatArray, FloatArray]:
        response = free + ln_inputs_Vn[0]
        return response, np.ones((*response.shape, 1))

    def box(self, ln_inputs_Vn: FloatArray, value_n: FloatArray):  # type: ignore[no-untyped-def]
        from scaling.laws.law import Box

        return Box(np.array([-50.0]), np.array([50.0]))


def test_a_law_that_is_not_registered_is_given_again_to_predict() -> None:
    x = np.array([1.0, 2.0, 3.0, 5.0])
    found = fit_law(Line(), {"x": x, "y": 3 * x}, value="y", bootstrap=0)
    assert found.predict(10.0, law=Line()).estimate == pytest.approx(30)
    with pytest.raises(UserError, match="law 'line' is not known"):
        found.predict(10.0)
    assert "law       line" in found.summary()
    assert not isinstance(Line(), LossLaw)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "power"}, "law 'power' is not known"),
        ({"law": "tissue"}, "law 'tissue' is of a whole learning-rate schedule: fit it with fit_loss_curves"),
        ({"columns": {}}, r"data has no column 'x': saturating-power is of x \(the columns are flops, loss"),
        ({"columns": {"y": "flops"}}, "columns has 'y': the inputs of saturating-power are x"),
        ({"value": "bpb"}, "data has no column 'bpb'"),
        ({"fixed": {"B": 1.0}}, "fixed has 'B': the constants of saturating-power are E, A, alpha"),
        ({"fixed": {"E": -1.0}}, "fixed has E -1.0: it is a finite number, not below zero"),
        ({"fixed": {"E": 1.0, "A": 1.0, "alpha": 0.1}}, "fixed holds every constant"),
        ({"fixed": {"A": 1.0}}, "A of saturating-power can't be held alone"),
        ({"huber_delta": 0.0}, "huber_delta is 0.0"),
        ({"bootstrap": 3}, "bootstrap is 3"),
        ({"level": 95}, "level is 95"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options: dict[str, object], message: str) -> None:
    asked: dict[str, object] = {"law": "saturating-power", "value": "loss", "columns": {"x": "flops"}, **options}
    with pytest.raises(UserError, match=message):
        fit_law(data=curve(0), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "row", "wrong", "message"),
    [
        ("flops", 2, 0.0, "row 3: flops is 0; it must be a number above zero"),
        ("loss", 4, np.nan, "row 5: loss is nan; it must be a number above zero"),
        ("loss", 0, "high", "column 'loss' holds something that is not a number"),
    ],
)
def test_a_wrong_cell_is_named_by_its_row(column: str, row: int, wrong: object, message: str) -> None:
    data = curve(0).astype(object)
    data.loc[row, column] = wrong
    with pytest.raises(UserError, match=message):
        fit(data)


def test_too_few_rows_and_a_column_of_one_value_are_refused() -> None:
    with pytest.raises(UserError, match="3 rows can't carry the 3 constants"):
        fit(curve(0)[:3])
    with pytest.raises(UserError, match="column 'flops' is 1e\\+20 in every row"):
        fit(curve(0).assign(flops=1e20))
    with pytest.raises(UserError, match="predict was given 2 inputs: saturating-power is of x"):
        fit(curve(0), bootstrap=0).predict(1.0, 2.0)
    with pytest.raises(UserError, match="every input of a law is a number above zero"):
        fit(curve(0), bootstrap=0).predict(-1.0)
    with pytest.raises(UserError, match="residuals of top-1-error can't be of logarithms"):
        fit_law("top-1-error", curve(0), value="flops", residuals="log")
