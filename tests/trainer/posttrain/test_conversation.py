"""What a conversation shows the model, what it leaves out when the context is full, and what is streamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaling.errors import UserError
from trainer.posttrain.conversation import Conversation
from trainer.posttrain.local_model import FolderModel, RunModel, _UntilStop
from trainer.posttrain.text_model import Asked, Message

from ..test_export import trained
from .tiny_models import CONTEXT, tiny_model

pytest.importorskip("transformers", reason="transformers is not installed (the posttrain extra)")


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> FolderModel:
    return FolderModel(tiny_model(tmp_path_factory.mktemp("assistant")))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> FolderModel:
    return FolderModel(tiny_model(tmp_path_factory.mktemp("base"), template=None))


def test_the_model_sees_the_conversation_in_its_templates_form(assistant: FolderModel) -> None:
    messages = [Message(role="system", content="be brief"), Message(role="user", content="the cat")]
    ids = assistant.encode(messages)
    assert assistant._tokenizer.decode(ids) == "[system]be brief\n[user]the cat\n[assistant]"


def test_what_is_streamed_is_the_answer_whatever_bytes_it_has(assistant: FolderModel) -> None:
    for seed in range(30):
        pieces: list[str] = []
        said = [Message(role="user", content="🦜")]
        answer = assistant.answer(said, Asked(most_tokens=30), seed=seed, show=pieces.append)
        assert "".join(pieces) == answer.text
        assert answer.text.strip("\ufffd"), "random bytes are not all unreadable"
        assert answer.text == assistant.answer(said, Asked(most_tokens=30), seed=seed).text


def test_greedy_is_transformers_own_greedy(assistant: FolderModel) -> None:
    import torch

    said = [Message(role="user", content="the cat")]
    ids = assistant.encode(said)
    logits_of = assistant._model
    tokens = list(ids)
    with torch.inference_mode():
        for _ in range(12):
            token = int(logits_of(torch.tensor([tokens])).logits[0, -1].argmax())
            if token == 0:
                break
            tokens.append(token)
    text = assistant._tokenizer.decode(tokens[len(ids) :], skip_special_tokens=True)
    answer = assistant.answer(said, Asked(most_tokens=12, temperature=0), seed=0)
    assert answer.text == text
    assert answer.prompt_tokens == len(ids)


def test_a_base_model_goes_on_from_the_whole_text(base: FolderModel) -> None:
    notes: list[str] = []
    talk = Conversation(base, Asked(most_tokens=5), note=notes.append)
    first = talk.say("the cat", lambda text: None)
    second = talk.say(" sat", lambda text: None)
    whole = base.encode([Message(role="user", content=f"the cat{first.text} sat")])
    assert second.prompt_tokens == len(whole)
    with pytest.raises(UserError, match="--system can't be given"):
        Conversation(base, Asked(), system="be brief", note=notes.append)


def test_the_oldest_turns_go_first_and_the_system_stays(assistant: FolderModel) -> None:
    notes: list[str] = []
    talk = Conversation(assistant, Asked(most_tokens=6), system="S", note=notes.append)
    for number in range(6):
        reply = talk.say(f"question {number}", lambda text: None)
        assert reply.prompt_tokens <= CONTEXT - 6
    assert "turns are left out" in notes[-1]
    assert len(talk.messages) == 13, "what the model no longer sees is kept for /save"
    talk._said.append(Message(role="user", content="last"))
    fits, tokens = talk._what_fits()
    assert fits[0].content == "S" and fits[-1].content == "last"
    assert fits[1].role == "user", "it begins with a question"
    assert tokens == len(assistant.encode(fits)) <= CONTEXT - 6
    talk.reset()
    assert [message.content for message in talk.messages] == ["S"]


def test_a_message_longer_than_the_context_is_cut_at_its_beginning_and_that_is_said(
    assistant: FolderModel, base: FolderModel
) -> None:
    for model in (assistant, base):
        notes: list[str] = []
        talk = Conversation(model, Asked(most_tokens=8), note=notes.append)
        reply = talk.say("the cat sat " * 60 + "end", lambda text: None)
        assert CONTEXT // 2 <= reply.prompt_tokens <= CONTEXT - 8
        assert len(notes) == 1 and f"context of {CONTEXT} tokens" in notes[0] and "characters" in notes[0]


def test_an_interrupted_answer_stays_as_far_as_it_came(assistant: FolderModel) -> None:
    talk = Conversation(assistant, Asked(most_tokens=30), seed=1, note=lambda text: None)
    came: list[str] = []

    def stop_soon(text: str) -> None:
        came.append(text)
        if len(came) == 3:
            raise KeyboardInterrupt

    reply = talk.say("hi", stop_soon)
    assert reply.ended == "interrupted" and reply.text == "".join(came)
    assert talk.messages[-1] == Message(role="assistant", content=reply.text)
    assert talk.say("go on", lambda text: None).ended in ("stop", "length")


def test_a_conversation_is_saved_once(assistant: FolderModel, tmp_path: Path) -> None:
    talk = Conversation(assistant, Asked(most_tokens=3), note=lambda text: None)
    talk.say("hé", lambda text: None)
    talk.save(tmp_path / "talk.json")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
    assert saved["messages"][0]["content"] == "hé"
    with pytest.raises(UserError, match="already exists"):
        talk.save(tmp_path / "talk.json")


def test_a_run_of_ours_is_talked_to_without_an_export(tmp_path: Path) -> None:
    run = trained(tmp_path)
    model = RunModel(run, lambda text: None)
    pieces: list[str] = []
    answer = model.answer([Message(role="user", content="cat")], Asked(most_tokens=10), seed=3, show=pieces.append)
    assert "".join(pieces) == answer.text and not model.has_template
    assert answer.completion_tokens is not None and 0 < answer.completion_tokens <= 10


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_nothing_of_a_stop_text_is_shown(size: int) -> None:
    text, shown = "one two ## three ### four", list[str]()
    until = _UntilStop(("###",), shown.append)
    try:
        for at in range(0, len(text), size):
            until.add(text[at : at + size])
        until.end()
    except Exception as found:
        assert type(found).__name__ == "_StopFound"
    assert until.text == "".join(shown) == "one two ## three "


def test_a_folder_that_is_no_model_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        FolderModel(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(UserError, match="can't be loaded as a model"):
        FolderModel(tmp_path)
