from __future__ import annotations

from pathlib import Path

import pytest

from scaling.errors import UserError
from tests.trainer.posttrain.base_models import write_base
from trainer.posttrain.chat_template import TEMPLATES, Chat
from trainer.posttrain.examples import Message, asked
from trainer.posttrain.policy import load_tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("answer", ["a word", "Word.", "42", "!done", "  spaced \n", "(x)\n\ny", "—dash"])
def test_prompt_and_answer_have_the_same_tokens_apart_as_together(base: Path, template: str, answer: str) -> None:
    chat = Chat(load_tokenizer(base), template)
    prompt = chat.prompt(asked("Say it"))
    together = chat.tokenizer(prompt + chat.completion(answer), add_special_tokens=False).input_ids
    assert chat.prompt_ids(asked("Say it")) + chat.completion_ids(answer)[:-1] == together


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_whole_conversation_begins_with_the_prompt_of_its_answer(base: Path, template: str) -> None:
    chat = Chat(load_tokenizer(base), template)
    said = [Message(role="system", content="S"), Message(role="user", content="Q"),
            Message(role="assistant", content="A"), Message(role="user", content="R")]  # fmt: skip
    ended = [*said, Message(role="assistant", content="B")]
    whole = chat.tokenizer.apply_chat_template([each.model_dump() for each in ended], tokenize=False)
    assert whole == chat.prompt(said) + "B" + chat.tokenizer.eos_token
    masked = chat.tokenizer.apply_chat_template(
        [each.model_dump() for each in ended], return_dict=True, return_assistant_tokens_mask=True
    )
    learned = [i for i, mine in zip(masked["input_ids"], masked["assistant_masks"], strict=True) if mine]
    assert learned == chat.completion_ids("A") + chat.completion_ids("B")


def test_the_template_goes_with_the_tokenizer(base: Path, tmp_path: Path) -> None:
    chat = Chat(load_tokenizer(base), "plain")
    chat.tokenizer.save_pretrained(tmp_path)
    assert Chat(load_tokenizer(tmp_path)).prompt(asked("Q")) == "Q\n"
    assert Chat(load_tokenizer(base)).prompt(asked("Q")) == "User:\nQ\nAssistant:\n"
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content + '>\\n' }}")
    assert Chat(load_tokenizer(base), str(tmp_path / "mine.jinja")).prompt(asked("Q")) == "Q>\n"
    with pytest.raises(UserError, match="chat_template is 'other': choose plain, dialogue, alpaca"):
        Chat(load_tokenizer(base), "other")


def test_text_that_spells_a_special_token_is_seen(base: Path) -> None:
    chat = Chat(load_tokenizer(base), "plain")
    assert chat.imitates("fine", "not <|endoftext|> fine") and not chat.imitates("fine", "also <| fine")


def test_padding_is_no_token_that_text_has(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    everything = "".join(map(chr, [*range(32, 255), *range(0x400, 0x420)])).replace("ÿ", "")
    assert tokenizer.pad_token_id not in tokenizer(everything).input_ids


def test_a_start_that_the_tokenizer_adds_is_there_once(base: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(base)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    chat = Chat(tokenizer, "plain")
    ids = chat.prompt_ids(asked("Q"))
    assert ids[0] == 0 and 0 not in ids[1:]
    assert tokenizer(chat.unstarted(chat.prompt(asked("Q")))).input_ids == ids
