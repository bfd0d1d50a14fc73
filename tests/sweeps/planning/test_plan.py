"""What a study says of its recipe is what its runs are given: parametrisation, base, rate and decay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from scaling import architectures
from scaling.architectures import total_params
from scaling.errors import UserError
from scaling.laws.power_lines import adamw_timescale
from scaling.run_spec import Parametrisation
from scaling.shape import ModelShape
from sweeps.conduct import Conductor
from sweeps.ledger.owner import Owner
from sweeps.planning.plan import Plan, run_spec
from sweeps.probe import probe_runs
from sweeps.standing import standing
from sweeps.study import Study
from sweeps.workspace import Workspace


def changed(study: Study, **hyperparameters: Any) -> Study:
    settings = study.model_dump(mode="json")
    return Study.model_validate(settings | {"hyperparameters": settings["hyperparameters"] | hyperparameters})


def conductor(study: Study, folder: Path, silent: Any) -> Conductor:
    return Conductor(study, Workspace(folder), silent)


@pytest.mark.parametrize("name", ["mup", "completep"])
def test_a_study_under_a_parametrisation_that_transfers_probes_one_size_and_makes_it_the_base(
    tiny_study: Study, tmp_path: Path, silent: Any, name: str
) -> None:
    study = changed(tiny_study, learning_rate="probe", parametrisation=name)
    plan = conductor(study, tmp_path, silent).plan()
    (probed,) = {point.shape for point in plan.probe}
    smallest = [p.point for p in plan.sweep if p.point.budget == plan.budgets[0]]
    assert sorted(total_params(p.shape) for p in smallest)[len(smallest) // 2] == total_params(probed)
    base = plan.parametrisation
    assert (base.name, base.base_width, base.base_head_width) == (name, probed.width, probed.head_width)
    assert base.base_layers == (probed.layers if name == "completep" else None)
    assert all(run.spec.parametrisation == base for run in probe_runs(study, plan))
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


def test_the_probed_rate_is_that_of_every_size(tiny_study: Study, tmp_path: Path, silent: Any) -> None:
    study = changed(tiny_study, learning_rate="probe", parametrisation="mup")
    made = conductor(study, tmp_path, silent)
    plan, me = made.plan(), Owner.me()
    made.ledger.add(study.name, probe_runs(study, plan))
    while (leased := made.ledger.lease(study.name, "probe", me)) is not None:
        loss = 4.0 + 0.05 * math.log(leased.optimizer.learning_rate / 7e-3) ** 2
        assert made.ledger.finish(leased.key, me, "finished", {"steps": leased.steps, "loss_nats": loss})
    law = made.learning_rates(plan)
    assert all(law.rate(p.point.params.total) == pytest.approx(7e-3) for p in plan.sweep)
    assert f"muP from a width of {plan.parametrisation.base_width}" in law.basis
    context = made.context(plan, law)
    assert context.parametrisation == plan.parametrisation


def test_standard_probes_two_sizes_and_a_base_that_is_given_is_kept(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    plan = conductor(changed(tiny_study, learning_rate="probe"), tmp_path / "standard", silent).plan()
    assert len({point.shape for point in plan.probe}) == 2
    assert plan.parametrisation == Parametrisation()
    given = {"name": "mup", "base_width": 64}
    plan = conductor(changed(tiny_study, parametrisation=given), tmp_path / "mup", silent).plan()
    assert plan.parametrisation == Parametrisation(name="mup", base_width=64)


def test_a_rate_is_probed_where_length_follows_size_for_what_two_runs_of_one_budget_cost(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    study = changed(tiny_study, learning_rate="probe", global_batch_tokens=32)
    plan = conductor(study, tmp_path, silent).plan()
    small, large = ({(total_params(p.shape), p.tokens) for p in plan.probe if p.shape == s} for s in plan_shapes(plan))
    ((small_params, small_tokens),), ((large_params, large_tokens),) = small, large
    assert large_tokens / small_tokens == pytest.approx(large_params / small_params, rel=0.02)
    spent = sum(flops_of(p.shape, p.tokens) for p in plan.probe) / len({p.learning_rate for p in plan.probe})
    assert spent == pytest.approx(2 * plan.budgets[0], rel=0.03)


def plan_shapes(plan: Plan) -> list[ModelShape]:
    return sorted({point.shape for point in plan.probe}, key=total_params)


def flops_of(shape: ModelShape, tokens: int) -> float:
    return float(architectures.get(shape.architecture).training_flops_per_token(shape) * tokens)


@pytest.mark.parametrize("exponent", [0.0, 0.383, 1.0])
def test_the_batch_of_every_run_follows_its_length_by_one_rule_which_the_large_run_keeps(
    tiny_study: Study, tmp_path: Path, silent: Any, exponent: float
) -> None:
    study = changed(tiny_study, batch_exponent=exponent)
    made = conductor(study, tmp_path, silent)
    plan = made.plan()
    rates = made.learning_rates(plan)
    runs = [run.spec for run in made.sweep_runs(plan, rates)]
    for run, planned in zip(runs, plan.sweep, strict=True):
        wanted = 128 * (planned.point.tokens / plan.batch_at_tokens) ** exponent
        assert abs(run.global_batch_tokens - wanted) <= max(16, wanted / 8)
        assert abs(run.tokens - planned.point.tokens) <= run.global_batch_tokens / 2
    batches = {run.global_batch_tokens for run in runs}
    assert (batches == {128}) if exponent == 0 else (min(batches) < 128 < max(batches))
    rule = made.context(plan, rates).batch
    if exponent:
        assert {rule.trained(run.tokens, 32) for run in runs} == batches
    else:
        largest = max(plan.sweep, key=lambda planned: planned.point.flops).point
        assert (rule.batch_tokens, rule.at_tokens) == (128, largest.tokens)


def test_branches_of_a_trunk_share_the_batch_of_their_middle_length(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    study = changed(tiny_study, batch_exponent=0.5)
    plan = conductor(study, tmp_path, silent).plan()
    middle = round(plan.batch_at_tokens)
    lengths = [middle // 4, middle, middle * 4]
    specs = [run_spec(study, plan, plan.shapes[0], tokens, 0.01, 0, lengths) for tokens in lengths]
    assert {spec.global_batch_tokens for spec in specs} == {128}
    assert len({spec.trunk_key for spec in specs}) == 1
    alone = [run_spec(study, plan, plan.shapes[0], tokens, 0.01, 0).global_batch_tokens for tokens in lengths]
    assert alone == [64, 128, 256]


def test_a_study_planned_while_all_runs_had_one_batch_goes_on_if_its_file_says_so(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    study = changed(tiny_study, batch_exponent=0)
    made = conductor(study, tmp_path, silent)
    made.ledger.add(study.name, made.sweep_runs(made.plan(), made.learning_rates(made.plan())))
    settings, plan = made.ledger.plan_of(study.name)  # type: ignore[misc]
    del settings["hyperparameters"]["batch_exponent"], plan["batch_at_tokens"]
    made.ledger.freeze(study.name, settings, plan)
    assert made.ledger.lease(study.name, "sweep", Owner.me()) is not None
    assert len(conductor(study, tmp_path, silent).plan().sweep) == len(plan["sweep"])
    with pytest.raises(UserError, match=r"hyperparameters\.batch_exponent: 0\.0 -> 0\.383"):
        conductor(tiny_study, tmp_path, silent).plan()


def test_a_design_planned_under_other_limits_goes_on_where_the_study_file_names_none(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    def designed(**named: float) -> Study:
        design = {"kind": "information", "most_runs": 14, "fewest_steps": 50} | named
        settings = tiny_study.model_dump(mode="json")
        return Study.model_validate(settings | {"budget": {"flops": 1.2e11}, "design": design})

    made = conductor(designed(), tmp_path, silent)
    made.ledger.add(made.study.name, made.sweep_runs(made.plan(), made.learning_rates(made.plan())))
    settings, plan = made.ledger.plan_of(made.study.name)  # type: ignore[misc]
    del settings["design"]["ratio_reach"]
    settings["design"]["smallest_share"] = 2e-3
    made.ledger.freeze(made.study.name, settings, plan)
    assert made.ledger.lease(made.study.name, "sweep", Owner.me()) is not None
    for study in (designed(), designed(ratio_reach=14, smallest_share=2e-3)):
        assert conductor(study, tmp_path, silent).plan() == Plan.model_validate(plan)
    with pytest.raises(UserError, match=r"design\.smallest_share: 0\.002 -> 0\.003"):
        conductor(designed(smallest_share=3e-3), tmp_path, silent).plan()


def test_a_timescale_is_each_runs_own_decay(tiny_study: Study, tmp_path: Path, silent: Any) -> None:
    study = changed(tiny_study, weight_decay={"timescale": 0.2})
    plan = conductor(study, tmp_path, silent).plan()
    decays = set()
    for planned in plan.sweep:
        spec = run_spec(study, plan, planned.point.shape, planned.point.tokens, 3e-3, seed=0)
        decay = spec.optimizer.weight_decay
        tau = adamw_timescale(spec.global_batch_tokens, spec.optimizer.learning_rate, decay, spec.tokens)
        assert tau == pytest.approx(0.2, rel=1e-5)
        decays.add(decay)
    assert len(decays) > 3


def test_what_is_left_of_a_study_counts_the_tuning_that_is_yet_to_come(
    tiny_study: Study, tmp_path: Path, silent: Any
) -> None:
    study = changed(tiny_study, learning_rate="probe", tune={"trials": 4, "sizes": 2, "lengths": 2})
    made = conductor(study, tmp_path, silent)
    plan = made.plan()
    now = standing(made.ledger, made.workspace, study.name)
    assert now.coming == {"tune": 4 * len(plan.tune), "sweep": len(plan.sweep), "hold-out": plan.replicates}
    assert now.seconds_left == pytest.approx(plan.makespan_seconds())
