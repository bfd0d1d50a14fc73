"""The page of a post-training, from stages written by hand: what it says of gains, of none, and of several seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from analysis.post_training_data import PostTrainingView, post_training_view
from analysis.post_training_report import post_training_html
from scaling.record import Interval
from trainer.posttrain.stage import StageFolder, StageKind, StageResult, StageSpec

Stage = tuple[int, str, StageFolder]


def _stage(
    root: Path, kind: StageKind, seed: int, metrics: dict[str, float | Interval], curve: Sequence[dict[str, float]] = ()
) -> Stage:
    spec = StageSpec(kind=kind, settings={}, inputs={}, seed=seed)
    folder = StageFolder.of(spec, root)
    folder.path.mkdir(parents=True)
    result = StageResult(
        key=spec.key, kind=kind, metrics={k: v.estimate if isinstance(v, Interval) else v for k, v in metrics.items()},
        intervals={k: v for k, v in metrics.items() if isinstance(v, Interval)}, notes=("<b>left out</b>",),
    )  # fmt: skip
    (folder.path / "stage.json").write_text(spec.model_dump_json())
    (folder.path / "result.json").write_text(result.model_dump_json())
    (folder.path / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    return seed, kind, folder


def _compared(root: Path, seed: int, gain: float) -> Stage:
    def near(value: float) -> Interval:
        return Interval(estimate=value, low=value - 0.02, high=value + 0.02)

    metrics: dict[str, float | Interval] = {"prompts": 20.0}
    for policy, gold, tokens in (("base", 0.3, 60), ("sft", 0.6, 30), ("ppo", 0.6 + gain, 25)):
        metrics |= {
            f"{policy}/gold": near(gold),
            f"{policy}/kl_nats": near(1.5),
            f"{policy}/answer_tokens": near(tokens),
        }
    stage = _stage(root, "compare", seed, metrics | {"ppo/gold_gain": near(gain)})
    draw = np.random.default_rng(seed)
    rows = [
        {
            "prompt": [{"role": "user", "content": f"<i>prompt {i}</i>"}],
            "wanted": "x",
            "answers": {
                name: {"text": f"<script>{name}</script>", "tokens": int(draw.integers(5, 60)), "gold": float(gold)}
                for name, gold in (("base", 0.3), ("sft", draw.random()), ("ppo", draw.random()))
            },
        }
        for i in range(20)
    ]
    stage[2].rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return stage


def _view(root: Path, *gains: float) -> PostTrainingView:
    stages = []
    for seed, gain in enumerate(gains):
        draw = np.random.default_rng(seed)
        curve = [
            {"step": i, "kl": d * d, "gold": 0.6 + 0.3 * d - 0.12 * d * d + 0.005 * draw.normal(), "score": 0.3 * d}
            for i, d in enumerate(np.linspace(0.05, 2.5, 25))
        ]
        stages += [_stage(root, "ppo", seed, {"prompts": 9.0}, curve), _compared(root, seed, gain)]
    return post_training_view("study <1>", stages)


def test_the_verdict_says_the_gain_its_divergence_and_length(tmp_path: Path) -> None:
    view = _view(tmp_path, 0.1)
    page = post_training_html(view, "scaling posttrain x.yaml")
    assert "ppo raised sft&#39;s gold score by +0.100 [+0.080, +0.120], at a KL of 1.50 nats and 25 tokens" in page
    assert "base raised" not in page and "base lowered" not in page
    assert view.over_optimised is not None and [curve.method for curve in view.over_optimised.curves] == ["PPO"]
    assert view.wins is not None and {row.label for row in view.wins.rows} == {"ppo", "base"}
    assert [each.gain for each in view.samples] == sorted((each.gain for each in view.samples), reverse=True)


def test_nothing_that_a_user_or_a_model_wrote_is_markup(tmp_path: Path) -> None:
    page = post_training_html(_view(tmp_path, 0.1), "scaling posttrain '<x>.yaml'")
    for text in ("<script>ppo", "<i>prompt", "<b>left", "study <1>", "'<x>"):
        assert text not in page
    assert "&lt;script&gt;ppo" in page


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((0.01,), "which these prompts do not tell from nothing"),
        ((-0.1,), "ppo lowered"),
        ((0.1, 0.05, -0.01), "up in 2 of 3 seeds and clearly one way in 2"),
    ],
)
def test_what_is_not_settled_is_said(tmp_path: Path, gains: tuple[float, ...], said: str) -> None:
    assert said in post_training_html(_view(tmp_path, *gains), "x")
