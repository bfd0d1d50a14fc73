from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.posttrain.base_models import SENTENCES, weights, write_base
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example, asked
from trainer.posttrain.policy import Lora, load_policy, load_tokenizer, quietly, save_model
from trainer.posttrain.sft import SFTSettings, Tokenised, answer_loss, fine_tune, keeps_examples_apart, tokenise
from trainer.posttrain.stage import Interrupted, StageFolder, StageRun

ROWS = [Example(prompt=asked(sentence.split()[1]), completion=sentence) for sentence in SENTENCES]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def _chat(base: Path) -> Chat:
    return Chat(load_tokenizer(base), "plain")


def _run(folder: Path, stop_after: int | None = None) -> StageRun:
    folder.mkdir(parents=True, exist_ok=True)
    run = StageRun(StageFolder(folder), 0, lambda *_: None, lambda: False)
    run.should_stop = lambda: stop_after is not None and run.steps >= stop_after
    return run


def _train(
    base: Path, folder: Path, stop_after: int | None = None, rows: list[Example] = ROWS, **settings: Any
) -> tuple[Any, Chat, StageRun]:
    chat, run = _chat(base), _run(folder, stop_after)
    chosen = SFTSettings(**({"learning_rate": 5e-3, "epochs": 8, "batch": 2} | settings))
    with quietly():
        model = fine_tune(load_policy(base), chat, tokenise(rows, chat, 64, run.note), chosen, run)
    return model, chat, run


def test_examples_that_do_not_fit_or_imitate_are_left_out_and_counted(base: Path) -> None:
    told: list[str] = []
    long = Example(prompt=asked("x"), completion="word " * 80)
    kept = tokenise([*ROWS, long, Example(prompt=asked("<|endoftext|>"), completion="x")], _chat(base), 64, told.append)
    assert len(kept) == len(ROWS) and len(told) == 2
    assert "1 of 8 examples are longer than 64 tokens" in told[0] and "spell a special token" in told[1]


def test_packed_examples_are_learned_as_each_would_be_alone(base: Path) -> None:
    """The gradient of one packed row is that of its examples apart, each token weighing alike."""
    from trainer.posttrain.sft import _Rows

    chat, model = _chat(base), load_policy(base)
    rows = tokenise(ROWS[:3], chat, 64, lambda _: None)
    assert keeps_examples_apart(model)

    def gradient(parts: list[list[Tokenised]]) -> dict[str, torch.Tensor]:
        model.zero_grad()
        tokens = sum(len(row.completion) for part in parts for row in part)
        for part in parts:
            packed = {
                "input_ids": [i for row in part for i in (*row.prompt, *row.completion)],
                "labels": [i for row in part for i in (*[-100] * len(row.prompt), *row.completion)],
                "seq_lengths": [len(row.prompt) + len(row.completion) for row in part],
            }
            # Beside another, longer row, so that it is padded.
            batch = _Rows(chat.tokenizer.pad_token_id)([packed, {"input_ids": [5] * 200, "labels": [-100] * 200}])
            labels = batch.pop("labels")
            logits = model(**batch, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
            )
            (loss / tokens).backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters()}

    together, apart = gradient([rows]), gradient([[row] for row in rows])
    for name in together:
        torch.testing.assert_close(together[name], apart[name], rtol=1e-3, atol=1e-6)


def test_a_packed_step_moves_the_weights_as_an_unpacked_one(base: Path, tmp_path: Path) -> None:
    one_row, three_rows = (
        _train(base, tmp_path / name, rows=ROWS[:3], epochs=1, warmup=0, max_tokens=200, **how)[0].state_dict()
        for name, how in (("packed", {"batch": 1}), ("apart", {"batch": 3, "packing": False}))
    )
    for name, weight in one_row.items():
        torch.testing.assert_close(weight, three_rows[name], rtol=1e-3, atol=1e-5)
    assert not torch.equal(one_row["model.norm.weight"], load_policy(base).state_dict()["model.norm.weight"])


def test_a_model_that_carries_one_example_into_the_next_is_found_out() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    recurrent = MambaForCausalLM(
        MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1, initializer_range=0.5)
    )
    assert not keeps_examples_apart(recurrent)


def test_the_loss_of_answers_is_what_a_plain_sum_gives(base: Path) -> None:
    chat, model = _chat(base), load_policy(base).eval()
    rows = tokenise(ROWS, chat, 64, lambda _: None)
    nats, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.completion]])
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
        for place in range(len(row.prompt), ids.shape[1]):
            nats -= float(log_p[place - 1, ids[0, place]])
            tokens += 1
    found = answer_loss(model, rows, chat.tokenizer.pad_token_id, batch=4)
    size = sum(len(row.completion.encode()) for row in ROWS)
    assert found["loss_nats"] == pytest.approx(nats / tokens, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(rank=4, alpha=8)])
def test_answers_are_learned(base: Path, tmp_path: Path, lora: Lora | None) -> None:
    chat = _chat(base)
    rows = tokenise(ROWS, chat, 64, lambda _: None)
    before = answer_loss(load_policy(base), rows, chat.tokenizer.pad_token_id)["loss_nats"]
    model, _, run = _train(base, tmp_path / "stage", epochs=20, lora=lora, learning_rate=2e-2 if lora else 5e-3)
    assert answer_loss(model, rows, chat.tokenizer.pad_token_id)["loss_nats"] < 0.8 * before
    assert [row["step"] for row in run.folder.curve()] == list(range(1, run.steps + 1))
    save_model(model, chat.tokenizer, tmp_path / "model")
    assert set(weights(tmp_path / "model")) == set(weights(base))
    again = answer_loss(load_policy(tmp_path / "model"), rows, chat.tokenizer.pad_token_id)
    assert again == answer_loss(model, rows, chat.tokenizer.pad_token_id)


def test_stopped_and_continued_ends_as_if_it_had_not_been(base: Path, tmp_path: Path) -> None:
    whole, _, all_at_once = _train(base, tmp_path / "whole")
    with pytest.raises(Interrupted):
        _train(base, tmp_path / "parts", stop_after=5)
    # A kill in the middle of a checkpoint leaves one without its last file, and rows of steps that are lost.
    cut_short = tmp_path / "parts" / "checkpoints" / "checkpoint-99"
    cut_short.mkdir()
    with (tmp_path / "parts" / "curve.jsonl").open("a") as curve:
        curve.write('{"step": 7, "loss": 0.5}\n{"step": 8, "lo')
    parts, _, run = _train(base, tmp_path / "parts")
    assert not cut_short.exists() and run.steps == all_at_once.steps
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, parts.state_dict()[name]), name
    assert run.folder.curve() == all_at_once.folder.curve()
