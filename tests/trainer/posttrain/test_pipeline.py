from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.errors import UserError
from tests.trainer.posttrain.base_models import write_base, write_corpus
from trainer.posttrain.chain import PostTraining
from trainer.posttrain.pipeline import Pipeline, load_pipeline
from trainer.posttrain.stage import StageFolder

TINY: dict[str, Any] = {
    "name": "tiny",
    "base": "base",
    "chat_template": "plain",
    "task": {"kind": "sentences", "source": "", "count": 200},
    "held_out": 0.2,
    "max_new_tokens": 16,
    "sft": {"learning_rate": 5e-3, "epochs": 1, "batch": 8},
    "pairs": {"prompts": 60, "noise": 0.2},
    "reward": {"learning_rate": 1e-3, "batch": 16},
    "dpo": {"learning_rate": 1e-3, "batch": 16},
    "ppo": {"learning_rate": 1e-3, "steps": 2, "answers_per_step": 16, "minibatch_answers": 8, "kl_coefficient": 0.1},
    "grpo": {"learning_rate": 1e-3, "steps": 2, "batch": 16, "answers": 4},
    "compare": {"prompts": 20},
}


class Work:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = write_base(folder / "base")
        self.corpus = write_corpus(folder / "corpus.txt")

    def run(self, until: str | None = None, **changes: Any) -> dict[str, StageFolder]:
        task = TINY["task"] | {"source": str(self.corpus)}
        asked = Pipeline.model_validate(TINY | {"task": task} | changes)
        work = PostTraining(
            asked, self.base, self.folder / "stages", progress=lambda *_: None, should_stop=lambda: False
        )
        return {f"{name} {seed}": stage for seed, name, stage in work.stages(until)}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("work"))


def test_a_chain_is_trained_once_and_only_what_a_change_changes_again(work: Work) -> None:
    first = work.run()
    assert list(first) == ["sft 0", "pairs 0", "reward 0", "dpo 0", "ppo 0", "grpo 0", "compare 0"]
    found = {name: stage.result() for name, stage in first.items()}
    assert all(found.values())
    compared = found["compare 0"]
    assert compared is not None and set(compared.intervals) >= {
        f"{policy}/{what}" for policy in ("sft", "dpo", "ppo", "grpo") for what in ("gold", "kl_nats", "answer_tokens")
    }
    assert compared.metrics["sft/kl_nats"] == pytest.approx(0, abs=1e-4)
    assert (first["ppo 0"].model / "config.json").is_file() and not first["ppo 0"].checkpoints.exists()
    curve = first["ppo 0"].curve()
    assert [row["step"] for row in curve] == [1, 2] and all("gold" in row and "kl" in row for row in curve)
    rows = [json.loads(line) for line in first["compare 0"].rows.read_text().splitlines()]
    assert len(rows) == 20 and set(rows[0]["answers"]) == {"base", "sft", "dpo", "ppo", "grpo"}

    # Where it is computed, and checkpoints' distance, change no result.
    again = work.run(threads=1, sft=TINY["sft"] | {"checkpoint_steps": 7})
    assert {name: stage.path for name, stage in again.items()} == {name: stage.path for name, stage in first.items()}
    assert {name: stage.result() for name, stage in again.items()} == found

    other = work.run(dpo=TINY["dpo"] | {"beta": 0.3})
    changed = {name for name in first if other[name].path != first[name].path}
    assert changed == {"dpo 0", "compare 0"}


def test_each_seed_has_its_own_chain(work: Work) -> None:
    little = {"dpo": None, "ppo": None, "grpo": None}
    found = work.run(seeds=(0, 1), reward=TINY["reward"] | {"members": 2}, **little)
    assert len(found) == 2 * 5 and len({stage.path for stage in found.values()}) == 10
    assert list(found)[2:4] == ["reward 1 0", "reward 2 0"]
    up_to = work.run("reward", reward=TINY["reward"] | {"members": 2}, **little)
    assert list(up_to) == ["sft 0", "pairs 0", "reward 1 0", "reward 2 0"]


def test_a_model_without_a_stage_of_its_own_starts_from_the_base(work: Work) -> None:
    found = work.run(sft=None, reward=None, dpo=None, grpo=None, pairs=None)
    result = found["compare 0"].result()
    assert list(found) == ["ppo 0", "compare 0"] and result is not None and "ppo/gold_gain" in result.metrics


def test_the_template_is_a_pipeline(tmp_path: Path) -> None:
    text = resources.files("trainer.posttrain").joinpath("pipeline_template.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text)
    asked = load_pipeline(tmp_path / "mine.yaml")
    assert asked.stage_names == ["sft", "pairs", "reward", "best_of_n", "dpo", "ppo", "compare"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sft": {"learning_rat": 1}}, r"sft.learning_rat is not a key here. Did you mean learning_rate\?"),
        ({"dpo": {"beta": 0}}, "dpo.beta is 0: it must be more than 0"),
        ({"pairs": None}, "has reward and no pairs to train it on"),
        ({"ppo": TINY["ppo"] | {"max_new_tokens": 9}}, "ppo has max_new_tokens, which the pipeline says"),
        ({"seeds": [1, 1]}, "give one or more, each once"),
        ({"task": {"kind": "rows", "data": {"file": "x.jsonl"}}}, "pairs sampled for a task without a score"),
        ({"task": {"kind": "poem"}}, "task.kind is 'poem': choose 'sentences', 'answers', 'rows'"),
        ({"ppo": {"steps": 1, "learning_rate": 1e-4, "kl_coefficient": 0, "answers_per_step": 7}}, "no multiple of"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TINY | changes))
    with pytest.raises(UserError, match=said) as caught:
        load_pipeline(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value) and "mine.yaml:" in str(caught.value)
