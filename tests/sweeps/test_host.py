"""A host with another processor measures how fast it is; what changes a run's numbers is the plan's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.errors import UserError
from sweeps import host
from sweeps.host import on_this_host
from sweeps.planning.plan import Plan
from trainer.loop import numerics
from trainer.loop.calibration import Calibration
from trainer.loop.numerics import processor_name

from .projected import Projected


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of this host's processor, which is another now."""
    monkeypatch.setattr(numerics, "_cpuinfo", lambda: {"model name": "Another Processor"})
    processor_name.cache_clear()
    yield processor_name()
    processor_name.cache_clear()


def refuse_to_measure(*_: object, **__: object) -> Calibration:
    pytest.fail("measured again")


def test_on_the_plans_processor_nothing_is_measured(
    projected: Projected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "calibrate", refuse_to_measure)
    assert on_this_host(projected.plan, tmp_path) == (projected.plan.numerics, projected.plan.calibration)


def test_another_processor_is_measured_once_and_computes_as_the_plan_does(
    projected: Projected, tmp_path: Path, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = projected.plan
    here, calibration = on_this_host(plan, tmp_path)
    assert (calibration.processor, here.processor) == (elsewhere, elsewhere)
    assert here == plan.numerics.model_copy(update={"processor": elsewhere})
    assert calibration.peak_flops_per_second(here) == pytest.approx(calibration.matmul_gflops_fp32 * 1e9) or (
        here.precision == "bf16"
    )
    assert {speed.shape for speed in calibration.speeds} == {speed.shape for speed in plan.calibration.speeds}
    monkeypatch.setattr("trainer.loop.calibrate._measure", refuse_to_measure)
    assert on_this_host(plan, tmp_path) == (here, calibration)


def in_bf16(plan: Plan, bf16: float) -> Plan:
    """The plan computes in bf16 and was made on this processor, whose products in it have so many GFLOP/s."""
    calibration = plan.calibration.model_copy(update={"matmul_gflops_fp32": 100.0, "matmul_gflops_bf16": bf16})
    wanted = plan.numerics.model_copy(update={"precision": "bf16", "kernels": False})
    return plan.model_copy(update={"calibration": calibration, "numerics": wanted})


def test_a_host_that_can_hardly_compute_in_the_plans_precision_is_refused_in_a_line(
    projected: Projected, tmp_path: Path
) -> None:
    assert on_this_host(in_bf16(projected.plan, 30.0), tmp_path)[0].precision == "bf16"
    with pytest.raises(UserError, match="bf16, whose products are 80 times slower than fp32's here") as raised:
        on_this_host(in_bf16(projected.plan, 1.25), tmp_path)
    assert "\n" not in str(raised.value)


def test_a_host_without_the_plans_device_is_refused_in_a_line(projected: Projected, tmp_path: Path) -> None:
    if numerics.torch.cuda.is_available():
        pytest.skip("this host has the device")
    wanted = projected.plan.numerics.model_copy(update={"device": "cuda", "kernels": False})
    with pytest.raises(UserError, match="can't train this study: device cuda is not available"):
        on_this_host(projected.plan.model_copy(update={"numerics": wanted}), tmp_path)
