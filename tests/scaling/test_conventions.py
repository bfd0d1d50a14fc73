from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.architectures import llama
from scaling.conventions import exponent_of_optima, exponents_by_convention, exponents_page
from scaling.errors import UserError


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    """Small llamas with a large vocabulary on exact iso-FLOP lines, whose loss is a law of N with the head."""
    rng, rows = np.random.default_rng(0), []
    for flops in np.geomspace(1e17, 1e19, 5):
        for size in np.geomspace(0.2, 5, 9) * np.sqrt(flops / 120):
            shape = llama.shape_for(float(size), vocabulary=32_000, context=1024)
            counts, tokens = llama.count_parameters(shape), flops / llama.training_flops_per_token(shape)
            loss = (1.8 + 480 / counts.with_head**0.35 + 2000 / tokens**0.366) * np.exp(0.002 * rng.standard_normal())
            rows.append(
                {
                    "params_total": counts.total,
                    "params_nonembedding": counts.nonembedding,
                    "params_with_head": counts.with_head,
                    "tokens": tokens,
                    "flops_exact": flops,
                    "loss": loss,
                }
            )
    return pd.DataFrame(rows)


def test_leaving_embeddings_out_raises_the_exponent_of_the_same_runs(runs: pd.DataFrame) -> None:
    found = {(one.params_convention, one.flops_convention): one for one in exponents_by_convention(runs, bootstrap=100)}
    assert len(found) == 6
    total, bare = found["total", "exact"], found["nonembedding", "exact"]
    for by in ("isoflop", "parametric"):
        low, high = getattr(bare, by).low, getattr(total, by).high
        assert low > high + 0.05
    # The truth's law counts the head (with a tied one that is the total): 0.366/(0.35 + 0.366).
    law = found["with-head", "6nd"].parametric
    assert law is not None and law.low is not None and law.high is not None
    assert law.low - 0.005 <= 0.366 / 0.716 <= law.high + 0.005
    # Under 6ND without embeddings these runs are no iso-FLOP lines, and it says so.
    refused = found["nonembedding", "6nd"]
    assert refused.isoflop is None and refused.reasons
    assert "refused" in exponents_page(list(found.values()))


@pytest.mark.shared
def test_nanochats_optima_give_an_exponent_for_each_convention(shared_data: Path) -> None:
    """karpathy/nanochat prints 0.54, 0.37 and 0.70; least squares on its printed rows 0.524, 0.366 and 0.681."""
    optima = pd.read_csv(shared_data / "published" / "nanochat_optima_jan26.csv")
    found = {name: exponent_of_optima(rows["flops"], rows["n_opt"]) for name, rows in optima.groupby("convention")}
    printed = {"kaplan_style": (0.524, 0.54), "chinchilla_all": (0.366, 0.37), "transformer_only": (0.681, 0.70)}
    for name, (by_least_squares, as_printed) in printed.items():
        assert found[name].estimate == pytest.approx(by_least_squares, abs=5e-4)
        low, high = found[name].low, found[name].high
        assert low is not None and high is not None and low <= as_printed <= high


def test_an_exponent_of_exact_optima_is_exact_and_of_two_has_no_interval() -> None:
    flops = np.array([1e18, 1e19, 1e20])
    found = exponent_of_optima(flops, 3 * flops**0.47)
    assert found.estimate == pytest.approx(0.47)
    assert found.low == pytest.approx(found.high)
    assert exponent_of_optima(flops[:2], flops[:2]).low is None


@pytest.mark.parametrize("params", [[1e6], [1e6, -1e6], [1e6, np.nan]])
def test_optima_that_give_no_exponent_are_refused(params: list[float]) -> None:
    with pytest.raises(UserError, match="two or more budgets"):
        exponent_of_optima([1e18, 1e19][: len(params)], params)


def test_a_table_with_one_way_of_counting_is_refused(runs: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="1 ways of counting"):
        exponents_by_convention(runs[["params_total", "tokens", "loss"]])
