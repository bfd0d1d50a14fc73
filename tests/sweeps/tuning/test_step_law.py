"""The whole procedure on runs that somebody else trained: Step Law's grid of learning rate and batch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
from tuning import costs, of_law, step_law_grid, tune_on_grid

from scaling.fits.tuned_law import fit_tuned_law


@pytest.mark.shared
@pytest.mark.slow
def test_a_tenth_of_the_grid_gives_a_law_that_loses_a_thousandth(shared_data: Path) -> None:
    """0.094% (SE 0.004) over 20 seeds of 180 runs at the three smaller of five models."""
    grid = step_law_grid(shared_data / "published")
    small = [nth for nth, cell in enumerate(grid.cells()) if grid.params[cell[0]] < 5e8]
    lost = []
    for seed in range(4):
        trials = tune_on_grid(grid, "tpe", seed, small, 15)
        assert len({(t.params, t.tokens, *t.values.values()) for t in trials}) == 180, "no run is chosen twice"
        assert len(trials) < len(grid.loss) / 10
        lost.append(costs(grid, of_law(fit_tuned_law(trials)))["all"])
    assert np.mean(lost) < 0.12
