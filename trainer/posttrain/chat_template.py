"""How a conversation is written as text: a template in the tokenizer's folder, so that who loads the model has it.

Every template ends a prompt at a token's boundary (a line's end), so that prompt and answer have the same tokens apart
as together. The answer ends with the tokenizer's end-of-text token. Roles that are marked by plain text can be imitated
by a user's text: a template with special tokens of its own, which a tokenizer brings, can't.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling.errors import UserError
from trainer.posttrain.examples import Message

__all__ = ["TEMPLATES", "Chat"]

# "generation" marks what the model is to say, for those who mask by it.
_ANSWER = "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
TEMPLATES = {
    # For contexts of a hundred tokens, where two words of markers are a tenth of the example.
    "plain": "{% for message in messages %}{% if message.role == 'assistant' %}" + _ANSWER + "{{ '' if loop.last else"
    " '\\n' }}{% else %}{{ message.content + '\\n' }}{% endif %}{% endfor %}",
    "dialogue": "{% for message in messages %}{% if message.role == 'assistant' %}{{ 'Assistant:\\n' }}"
    + _ANSWER
    + "{{ '' if loop.last else '\\n' }}{% else %}{{ message.role | capitalize + ':\\n' + message.content + '\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}",
    # Taori et al. 2023, as most instruction data of that year were written.
    "alpaca": "{% for message in messages %}{% if message.role == 'assistant' %}{{ '### Response:\\n' }}"
    + _ANSWER
    + "{{ '' if loop.last else '\\n\\n' }}{% elif message.role == 'system' %}{{ message.content + '\\n\\n' }}{% else %}"
    "{{ '### Instruction:\\n' + message.content + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}",
}


class Chat:
    """A tokenizer that writes conversations; ``tokenizer``'s template is changed in place."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        """template: a name of ``TEMPLATES``, a ``.jinja`` file, or None for the tokenizer's own (``dialogue`` if none).

        :class:`UserError` if there is no such template, or the tokenizer has no token that ends a text.
        """
        if tokenizer.eos_token is None:
            raise UserError("the base model's tokenizer has no eos_token, which answers end with: add one to it")
        if template is not None or tokenizer.chat_template is None:
            tokenizer.chat_template = _template(template or "dialogue")
        self.tokenizer = tokenizer
        self._special = tuple(token for token in tokenizer.all_special_tokens if token)
        self._starts_text = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]

    @property
    def template(self) -> str:
        return str(self.tokenizer.chat_template)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text that an answer follows, with the token that begins a text where the tokenizer would add it."""
        said = [message.model_dump() for message in messages]
        text = str(self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
        start = self.tokenizer.bos_token if self._starts_text else ""
        return text if text.startswith(start) else start + text

    def unstarted(self, prompt: str) -> str:
        """``prompt`` for those who tokenise it by the tokenizer's own habit, which adds that token."""
        return prompt.removeprefix(self.tokenizer.bos_token) if self._starts_text else prompt

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self.ids(self.prompt(messages))

    def ids(self, prompt: str) -> list[int]:
        """The tokens of what :meth:`prompt` wrote."""
        return list(self.tokenizer(prompt, add_special_tokens=False).input_ids)

    def text(self, ids: Sequence[int]) -> str:
        """An answer's text, without the tokens that only end it."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def completion(self, text: str) -> str:
        """An answer as it is trained on: without white space around it, and without the token that ends it."""
        return text.strip().removesuffix(self.tokenizer.eos_token).strip()

    def completion_ids(self, text: str) -> list[int]:
        """The answer's tokens, and the one that ends it."""
        ids = self.tokenizer(self.completion(text), add_special_tokens=False).input_ids
        return [*ids, self.tokenizer.eos_token_id]

    def imitates(self, *texts: str) -> bool:
        """Whether a text spells a special token, which would be one when it is tokenised."""
        return any(token in text for text in texts for token in self._special)


def _template(name: str) -> str:
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name).expanduser()
    if path.suffix == ".jinja" and path.is_file():
        return path.read_text(encoding="utf-8")
    raise UserError(f"chat_template is {name!r}: choose {', '.join(TEMPLATES)}, or give a .jinja file")
