"""A real study that trains in seconds: on a text made here, for the starter corpus would take too long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sweeps.study import Study

from .large import Large
from .projected import Projected, frozen_study

WORDS = ["the", "a", "sun", "moon", "tree", "river", "runs", "falls", "sings", "sleeps", "old", "new", "red", "cold"]
WORDS += ["and", "but", "then", "under", "over", "near"]


def write_text(folder: Path, documents: int = 400) -> Path:
    """Sentences of a small grammar, the same on every machine: enough for a BPE of 300 and thirty held-out pieces."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(documents):
        words = rng.choice(WORDS, size=240)
        sentences = (" ".join(words[i : i + 8]).capitalize() + f" {number}." for i in range(0, len(words), 8))
        (folder / f"{number:03}.txt").write_text("\n".join(sentences), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture
def tiny_study(tiny_text: Path) -> Study:
    """Twelve runs of a second or less, three budgets and four sizes, no probe, one hold-out."""
    return Study.model_validate(
        {
            "name": "tiny",
            "question": {"flops": 1e15},
            "corpus": {"source": str(tiny_text), "vocabulary": 300, "held_out": 0.2},
            "model": {"context": 32},
            "budget": {"flops": 1.5e11},
            "design": {
                "kind": "isoflop",
                "budgets": 3,
                "ratio": 1.6,
                "sizes": 4,
                "size_step": 1.5,
                "tokens_per_param": 4,
                "replicates": 1,
            },
            "hyperparameters": {"learning_rate": 0.01, "global_batch_tokens": 128},
            "track": {"mlflow": None},
        }
    )


class Silent:
    """Progress for nobody; keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.seen: list[str] = []

    def planned(self, plan: object) -> None: ...
    def step(self, what: str, share: float | None = None) -> None:
        if not self.seen or self.seen[-1] != what:
            self.seen.append(what)

    def runs(self, stage: str, rows: object) -> None: ...
    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture(scope="session")
def frozen(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    return frozen_study(tiny_text, tmp_path_factory.mktemp("frozen"), Silent())


@pytest.fixture
def projected(frozen: tuple[Study, Path], tmp_path: Path) -> Projected:
    return Projected(*frozen, tmp_path / "workspace")


@pytest.fixture
def large(projected: Projected, tiny_text: Path, silent: Silent) -> Large:
    return Large(projected, tiny_text, silent)
