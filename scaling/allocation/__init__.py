"""Where compute should go, under a fit: the compute optimum, and what moves it.

``allocate`` is the compute optimum and ``flat_region`` how flat the ground around it is. Around it: models that are
served (``inference_optimum``), text that runs out (``limited_data_optimum``), models smaller than the optimum
(``shrink``, ``iso_loss``), laws that disagree (``compare``), and what one more FLOP of sweep is worth (``sweep_worth``,
``candidate_worth``). ``answer`` is all of them in one record, as ``scaling allocate`` prints it.
"""

from __future__ import annotations

from scaling.allocation.answer import AllocationAnswer, answer
from scaling.allocation.compute_optimum import (
    ESTIMATORS,
    FLAT_SHARE,
    Allocation,
    Estimator,
    allocate,
    flat_region,
    preferred_estimator,
)
from scaling.allocation.disagreement import Disagreement, compare
from scaling.allocation.inference_aware import InferenceOptimum, inference_optimum
from scaling.allocation.iso_loss import IsoLossCurve, iso_loss
from scaling.allocation.limited_data import LimitedOptimum, limited_data_optimum, repetition_constants
from scaling.allocation.over_trained import Shrunk, shrink
from scaling.allocation.surface import LossSurface
from scaling.allocation.sweep_worth import CandidateWorth, SweepWorth, candidate_worth, regret, sweep_worth

__all__ = [
    "ESTIMATORS",
    "FLAT_SHARE",
    "Allocation",
    "AllocationAnswer",
    "CandidateWorth",
    "Disagreement",
    "Estimator",
    "InferenceOptimum",
    "IsoLossCurve",
    "LimitedOptimum",
    "LossSurface",
    "Shrunk",
    "SweepWorth",
    "allocate",
    "answer",
    "candidate_worth",
    "compare",
    "flat_region",
    "inference_optimum",
    "iso_loss",
    "limited_data_optimum",
    "preferred_estimator",
    "regret",
    "repetition_constants",
    "shrink",
    "sweep_worth",
]
