"""Runs in bf16 and on our kernels end like those in fp32 on PyTorch's; in full: benchmarks/precision_equivalence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from scaling.run_spec import RunSpec
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.train import train
from trainer.tracker import NullTracker

MARGIN = 0.005
SEEDS = 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [Numerics(precision="bf16"), Numerics(kernels=True), Numerics(precision="bf16", kernels=True)],
    ids=lambda way: way.label,
)  # fmt: skip
def test_the_way_of_computing_leaves_the_loss_where_it_was_within_half_a_percent(
    tiny_corpus: Corpus, tiny_spec: Callable[..., RunSpec], tmp_path: Path, way: Numerics
) -> None:
    def loss(seed: int, numerics: Numerics) -> float:
        result = train(
            tiny_spec(steps=400, seed=seed), tiny_corpus, numerics, directory=tmp_path / f"{seed}-{numerics.label}",
            tracker=NullTracker(), should_stop=lambda: False,
        )  # fmt: skip
        assert result.loss_nats is not None
        return result.loss_nats

    difference = np.array([loss(seed, way) / loss(seed, Numerics()) - 1 for seed in range(SEEDS)])
    half = student.ppf(0.95, SEEDS - 1) * difference.std(ddof=1) / np.sqrt(SEEDS)
    # Two one-sided tests at 5%: the whole 90% interval of the mean lies within the margin.
    assert abs(difference.mean()) + half < MARGIN
