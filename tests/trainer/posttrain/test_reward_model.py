from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from scaling.errors import UserError
from scaling.record import Interval
from tests.trainer.posttrain.base_models import SENTENCES, write_base
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Pair, asked
from trainer.posttrain.policy import load_tokenizer, quietly, save_model
from trainer.posttrain.reward_model import (
    RewardModel,
    RewardSettings,
    load_head,
    pair_metrics,
    tokenise_pairs,
    train_reward,
)
from trainer.posttrain.stage import StageFolder, StageRun


def _pairs(count: int) -> list[Pair]:
    """A sentence is better than its words in disorder."""
    draw = random.Random(0)
    pairs = []
    for i in range(count):
        sentence = SENTENCES[i % len(SENTENCES)]
        words = sentence.split()
        draw.shuffle(words)
        pairs.append(Pair(prompt=asked(sentence.split()[1]), chosen=sentence, rejected=" ".join(words)))
    return pairs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Chat]:
    folder = tmp_path_factory.mktemp("reward")
    base = write_base(folder / "base")
    chat = Chat(load_tokenizer(base), "plain")
    run = StageRun(StageFolder(folder), 0, lambda *_: None, lambda: False)
    ids, _ = tokenise_pairs(_pairs(64), chat, 64, run.note)
    with quietly():
        model = train_reward(base, chat, ids, RewardSettings(learning_rate=5e-3, batch=16, epochs=6), run)
        save_model(model, chat.tokenizer, folder / "model")
    assert run.folder.curve()[0]["loss"] == pytest.approx(np.log(2), abs=1e-3), (
        "every answer is worth the same at first"
    )
    return folder / "model", chat


def test_it_tells_the_better_answer(trained: tuple[Path, Chat]) -> None:
    folder, chat = trained
    reward = RewardModel([folder], chat)
    pairs = _pairs(200)[64:]
    prompts = [pair.prompt for pair in pairs]
    better = np.subtract(
        reward.of_messages(prompts, [p.chosen for p in pairs]), reward.of_messages(prompts, [p.rejected for p in pairs])
    )
    assert (better > 0).mean() > 0.9


def test_a_reward_depends_on_its_row_alone_and_on_the_end(trained: tuple[Path, Chat]) -> None:
    folder, chat = trained
    ids, _ = tokenise_pairs(_pairs(12), chat, 64, lambda _: None)
    rows = [pair.chosen for pair in ids] + [pair.rejected[:-3] for pair in ids]
    together = RewardModel([folder], chat, batch=24).of_tokens(rows)
    alone = [RewardModel([folder], chat).of_tokens([row])[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-5)
    ended, cut = RewardModel([folder], chat).of_tokens([ids[0].chosen, ids[0].chosen[:-1]])
    assert abs(ended - cut) > 1e-3


def test_an_ensemble_is_the_mean_less_its_disagreement(trained: tuple[Path, Chat], tmp_path: Path) -> None:
    folder, chat = trained
    other = load_head(folder, chat.tokenizer)
    other.score.weight.data *= -0.5
    save_model(other, chat.tokenizer, tmp_path / "other")
    row = [tokenise_pairs(_pairs(1), chat, 64, lambda _: None)[0][0].chosen]
    one, two = (RewardModel([each], chat).of_tokens(row)[0] for each in (folder, tmp_path / "other"))
    careful = RewardModel([folder, tmp_path / "other"], chat, caution=2.0).of_tokens(row)[0]
    assert two == pytest.approx(-0.5 * one, abs=1e-4)
    assert careful == pytest.approx((one + two) / 2 - 2 * abs(one - two) / np.sqrt(2), abs=1e-4)


def test_metrics_of_held_out_pairs() -> None:
    draw = np.random.default_rng(0)
    margins = draw.normal(1, 1, 400)
    found = pair_metrics(margins.tolist(), [0.0] * 400, [(9, 8), (8, 9)] * 200)
    accuracy, longer = found["accuracy"], found["length_accuracy"]
    assert isinstance(accuracy, Interval) and isinstance(longer, Interval)
    assert accuracy.estimate == pytest.approx((margins > 0).mean()) and accuracy.low is not None
    assert longer.estimate == 0.5 and found["p_value_of_length_as_good"] < 1e-6


def test_a_folder_without_a_model_is_refused(trained: tuple[Path, Chat], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be given a reward head"):
        load_head(tmp_path, trained[1].tokenizer)
