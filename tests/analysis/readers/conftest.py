"""Twenty-four runs whose numbers are known, for other software to log."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Trained:
    params: int
    tokens: int
    losses: tuple[float, ...]
    """Held-out, by step; the least is not the last."""

    @property
    def lr(self) -> float:
        return round(0.02 * self.params**-0.2, 6)


def ladder() -> list[Trained]:
    """Four sizes at six lengths under a Chinchilla law, each with a slight rise at its end."""
    runs = []
    for params in (1_000_000, 2_000_000, 4_000_000, 8_000_000):
        for ratio in (5, 10, 20, 40, 80, 160):
            tokens = params * ratio
            losses = [round(1.7 + 480 / params**0.35 + 2100 / (tokens * share) ** 0.37, 6) for share in (0.25, 0.5, 1)]
            runs.append(Trained(params, tokens, (*losses, round(losses[-1] + 0.01, 6))))
    return runs


@pytest.fixture(scope="session")
def trained() -> list[Trained]:
    return ladder()
