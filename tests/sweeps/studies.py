"""The small study that several files of tests plan and train."""

from __future__ import annotations

from pathlib import Path

from sweeps.study import Study


def small_study(text: Path, **changes: object) -> Study:
    """Twelve runs of the smallest sizes there are, three budgets, no probe."""
    settings: dict[str, object] = {
        "name": "tiny",
        "question": {"flops": 1e15},
        "corpus": {"source": str(text), "vocabulary": 300, "held_out": 0.2},
        "model": {"context": 32},
        "budget": {"flops": 6e10},
        "design": {
            "kind": "isoflop",
            "budgets": 3,
            "ratio": 1.3,
            "sizes": 4,
            "size_step": 1.5,
            "tokens_per_param": 2,
        },
        "hyperparameters": {"learning_rate": 0.01, "global_batch_tokens": 128},
    }
    return Study.model_validate(settings | changes)
