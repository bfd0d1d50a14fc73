"""Laws as surfaces: Hoffmann's as printed to three digits, and random ones with draws around them."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.allocation import LossSurface

HOFFMANN_PRINTED = (406.4, 410.7, 1.69, 0.336, 0.283)
"""A, B, E, α, β of 2203.15556, α and β to the third digit, as 2401.00448 uses them."""


@pytest.fixture
def hoffmann() -> LossSurface:
    return LossSurface(np.array([HOFFMANN_PRINTED]), 0.9)
