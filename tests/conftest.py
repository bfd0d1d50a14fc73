"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# One thread a process, as the engine runs its workers: more threads on shared cores are far slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is timed: how long an example takes is the machine's doing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published runs and corpora; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the published runs and corpora (../shared/data) are not here")
    return folder
