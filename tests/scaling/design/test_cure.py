from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.design.cure import cure_design
from scaling.design.design import Design
from scaling.design.expected import expected_interval
from scaling.design.family import Family
from scaling.design.information import Limits, information_design
from scaling.design.isoflop import budgets_for, isoflop_design
from scaling.design.law_prior import LawPrior
from scaling.errors import UserError
from scaling.fit import Fit
from scaling.fits.together import fit_table
from scaling.laws.chinchilla import CHINCHILLA

FAMILY = Family("llama", 256, 128, True, 512)
PRIOR = LawPrior.plausible(3e12, truths=6)
TRUTH = PRIOR.theta[0]
LINES = isoflop_design(
    FAMILY,
    budgets=budgets_for(2e14, 4, 3.0, 5),
    sizes_per_budget=5,
    tokens_per_param_centre=PRIOR.tokens_per_param(3e12),
    size_step=1.6,
)


def _fit(design: Design, noise: float = 0.004) -> Fit:
    params = np.array([point.params.total for point in design.points], dtype=np.float64)
    tokens = np.array([point.tokens for point in design.points], dtype=np.float64)
    shock = noise * np.random.default_rng(0).standard_normal(len(params))
    return fit_table(
        pd.DataFrame(
            {
                "params": params,
                "tokens": tokens,
                "flops": [point.flops for point in design.points],
                "loss": CHINCHILLA.predict(TRUTH, params, tokens) * np.exp(shock),
            }
        ),
        flops_convention="exact",
        methods=("parametric",),
        bootstrap=100,
        diagnose=False,
    )


def test_runs_of_one_size_are_cured_to_where_a_law_is_fitted() -> None:
    one_size = LINES.model_copy(update={"points": tuple(p for p in LINES.points if p.shape == LINES.shapes[3])})
    refused = _fit(one_size)
    assert refused.parametric.status == "refused"
    cure = cure_design(refused, FAMILY, target_flops=1e17, noise=0.004)
    assert cure.kind == "cure"
    assert all(point.tokens % FAMILY.global_batch_tokens == 0 for point in cure.points)
    both = LINES.model_copy(update={"points": (*one_size.points, *cure.points)})
    assert _fit(both).parametric.status == "ok"


def test_a_cure_beyond_the_budget_is_one_line_of_advice() -> None:
    one_size = LINES.model_copy(update={"points": tuple(p for p in LINES.points if p.shape == LINES.shapes[3])})
    with pytest.raises(UserError, match="budget"):
        cure_design(_fit(one_size), FAMILY, target_flops=1e17, noise=0.004, budget=1e6)


def test_a_fit_that_is_merely_wide_gets_runs_that_narrow_it() -> None:
    fit = _fit(LINES)
    cure = cure_design(fit, FAMILY, target_flops=1e17, noise=0.004)
    assert cure.flops <= 0.5 * LINES.flops * 1.02
    before = expected_interval(LINES, PRIOR, 1e17, 0.004)
    again = LINES.model_copy(update={"points": LINES.points + LINES.points[: len(cure.points)]})
    with_cure = LINES.model_copy(update={"points": (*LINES.points, *cure.points)})
    after = expected_interval(with_cure, PRIOR, 1e17, 0.004)
    assert after.loss < before.loss
    assert after.params < before.params
    assert after.loss_if_law_holds < expected_interval(again, PRIOR, 1e17, 0.004).loss_if_law_holds


def test_a_round_narrows_the_answer_and_takes_no_seed_of_the_one_before() -> None:
    first = information_design(FAMILY, 2e14, target_flops=1e17, prior=PRIOR, noise=0.004, cooldown=0.15)
    second = information_design(
        FAMILY, 2e14, target_flops=1e17, prior=PRIOR, noise=0.004, cooldown=0.15, trained=first.points
    )
    both = first.model_copy(update={"points": (*first.points, *second.points)})
    before, after = (expected_interval(design, PRIOR, 1e17, 0.004) for design in (first, both))
    assert after.loss < before.loss
    assert after.params < before.params
    assert not {(p.shape, p.replicate) for p in first.points} & {(p.shape, p.replicate) for p in second.points}


def test_an_open_trunk_is_carried_on_for_what_is_left_of_it() -> None:
    limits = Limits(most_runs=20, largest_share=0.5)
    first = information_design(
        FAMILY, 2e14, target_flops=1e17, prior=PRIOR, noise=0.004, cooldown=0.15, limits=Limits(largest_share=0.1)
    )
    second = information_design(
        FAMILY,
        1e14,
        target_flops=1e17,
        prior=PRIOR,
        noise=0.004,
        cooldown=0.15,
        limits=limits,
        trained=first.points,
        trunks_open=True,
    )
    open_trunks = {(p.shape, p.replicate): 0 for p in first.points if p.branched}
    for point in first.points:
        if point.branched:
            key = (point.shape, point.replicate)
            open_trunks[key] = max(open_trunks[key], point.tokens)
    joined = [p for p in second.points if p.branched and (p.shape, p.replicate) in open_trunks]
    assert joined
    for point in joined:
        reached = open_trunks[point.shape, point.replicate]
        if point.tokens <= reached:
            assert point.cost_flops == pytest.approx(0.15 * point.flops)
        else:
            assert point.cost_flops < point.flops
    assert second.flops <= 1e14 * (1 + 1e-9)
