from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.posttrain.base_models import SENTENCES, write_base
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.direct import DirectSettings, DPOSettings, KTOSettings, SimPOSettings, train_directly
from trainer.posttrain.examples import Pair, asked
from trainer.posttrain.log_probs import answer_log_probs
from trainer.posttrain.policy import load_policy, load_tokenizer, quietly
from trainer.posttrain.stage import StageFolder, StageRun

PAIRS = [
    Pair(prompt=asked("say"), chosen=sentence, rejected=other)
    for sentence, other in zip(SENTENCES[:3], SENTENCES[3:], strict=True)
] * 8

RATE = {"learning_rate": 3e-3, "batch": 8, "epochs": 4}


@pytest.mark.parametrize(
    "settings",
    [
        DPOSettings(**RATE),
        DPOSettings(**RATE, loss="dpo_norm"),
        DPOSettings(**RATE, loss="ipo"),
        KTOSettings(**RATE),
        SimPOSettings(**RATE),
    ],
    ids=["dpo", "dpo_norm", "ipo", "kto", "simpo"],
)
def test_the_chosen_gain_on_the_rejected(tmp_path: Path, settings: DirectSettings) -> None:
    base = write_base(tmp_path / "base")
    chat = Chat(load_tokenizer(base), "plain")
    run = StageRun(StageFolder(tmp_path), 0, lambda *_: None, lambda: False)
    with quietly():
        trained = train_directly(base, chat, PAIRS, settings, run).eval()

    def margins(model: object) -> np.ndarray:
        prompts = [chat.prompt_ids(pair.prompt) for pair in PAIRS[:3]]
        sides = ([chat.completion_ids(getattr(pair, side)) for pair in PAIRS[:3]] for side in ("chosen", "rejected"))
        chosen, rejected = (answer_log_probs(model, prompts, each).detach().numpy() for each in sides)
        return np.asarray(chosen - rejected)

    assert (margins(trained) > margins(load_policy(base).eval())).all()
    rewards = [row["rewards/margins"] for row in run.folder.curve() if "rewards/margins" in row]
    assert rewards[-1] > rewards[0]
