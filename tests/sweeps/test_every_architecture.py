"""A study of each architecture goes from its file to a run that can be launched."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.conduct import Conductor
from sweeps.study import Study
from sweeps.workspace import Workspace

from .conftest import Silent


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "lstm", "mamba2"])
def test_a_study_of_any_architecture_ends_with_a_run_to_launch(
    tiny_study: Study, tmp_path: Path, architecture: str
) -> None:
    design = {"kind": "isoflop", "budgets": 3, "ratio": 1.3, "sizes": 4, "size_step": 1.5}
    design |= {"tokens_per_param": 2, "replicates": 1}
    changes = {"model": {"context": 32, "architecture": architecture}, "budget": {"flops": 6e10}, "design": design}
    study = Study.model_validate(tiny_study.model_dump() | changes)
    conductor = Conductor(study, Workspace(tmp_path), Silent())
    result = conductor.result(conductor.plan())
    assert not result.failed
    assert set(result.observations["architecture"]) == {architecture}
    assert (result.observations["role"] == "hold-out").sum() == 1
    assert len(result.observations) == 13
    run = result.recommendation.run
    assert run is not None and run.shape.architecture == architecture
