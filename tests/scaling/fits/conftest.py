"""Tables with known answers: Epoch's points and simulated studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.simulation import IsoflopDesign, random_small_truth, simulate_isoflop


@pytest.fixture(scope="session")
def epoch(shared_data: Path) -> pd.DataFrame:
    """Besiroglu et al.'s 240 points in their order: 245 read off Hoffmann's figure 4 less the five highest losses."""
    runs = pd.read_csv(shared_data / "published" / "epoch_chinchilla_245.csv")
    return runs[~runs["dropped_by_besiroglu"]]


@pytest.fixture(scope="session")
def laptop_study() -> tuple[np.ndarray, pd.DataFrame]:
    """A truth at laptop scale and fifteen runs of it on three iso-FLOP lines, noise 0.5% of loss."""
    rng = np.random.default_rng(3)
    theta, middle_flops = random_small_truth(rng)
    return theta, simulate_isoflop(theta, IsoflopDesign(3, 5, middle_flops), 0.005, rng)
