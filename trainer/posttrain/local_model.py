"""A model on this machine as a :class:`TextModel` that speaks as it goes: a Hugging Face folder, or a run of ours."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import UserError
from trainer.posttrain.text_model import Answer, Asked, Message

if TYPE_CHECKING:
    from trainer.run_folder import TrainedRun

__all__ = ["FolderModel", "LocalModel", "RunModel", "is_model_folder"]


class LocalModel(ABC):
    name: str
    concurrency = 1
    context: int | None
    """Tokens; None where the model knows no limit."""
    has_template: bool
    """Whether it was taught a conversation's form; a base model goes on from a text instead."""

    @abstractmethod
    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of what the next answer follows: by the chat template, or the messages' text after a separator."""

    @abstractmethod
    def go_on(self, ids: Sequence[int], asked: Asked, *, seed: int, show: Callable[[str], None]) -> tuple[int, bool]:
        """Draw what follows ``ids``, each piece of text told to ``show`` when it is certain.

        Returns how many tokens were drawn, and whether the model ended by itself. What ``show`` raises ends it.
        """

    def answer(
        self,
        messages: Sequence[Message],
        asked: Asked,
        *,
        seed: int,
        show: Callable[[str], None] = lambda text: None,
    ) -> Answer:
        """An answer, shown as it comes. Equal seeds give equal ones. A schema can't be enforced here and is ignored."""
        with self._one_at_a_time:
            ids = self.encode(messages)
            if self.context is not None and len(ids) >= self.context:
                raise UserError(
                    f"{self.name} takes {self.context} tokens at once, and this prompt has {len(ids)}: make it "
                    "shorter, or choose a model of a longer context"
                )
            text = _UntilStop(asked.stop, show)
            drawn, ended = 0, True
            try:
                drawn, ended = self.go_on(ids, asked, seed=seed, show=text.add)
                text.end()
            except _StopFound:
                drawn = text.pieces
            return Answer(
                text=text.text,
                ended="stop" if ended else "length",
                prompt_tokens=len(ids),
                completion_tokens=drawn,
            )

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()


class _StopFound(Exception):
    pass


class _UntilStop:
    """Text so far; what could be the beginning of a stop text is shown only when it is known not to be."""

    def __init__(self, stop: Sequence[str], show: Callable[[str], None]) -> None:
        self._stop, self._show, self._shown = [each for each in stop if each], show, 0
        self.text, self.pieces = "", 0

    def add(self, piece: str) -> None:
        self.text += piece
        self.pieces += 1
        found = [at for stop in self._stop if (at := self.text.find(stop)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.end()
            raise _StopFound
        self._show_up_to(len(self.text) - max((_begun(self.text, stop) for stop in self._stop), default=0))

    def end(self) -> None:
        self._show_up_to(len(self.text))

    def _show_up_to(self, end: int) -> None:
        if end > self._shown:
            self._show(self.text[self._shown : end])
            self._shown = end


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def is_model_folder(path: Path) -> bool:
    """Whether transformers would find a model there."""
    return (path / "config.json").is_file()


class FolderModel(LocalModel):
    """A causal model in the Hugging Face layout, on the GPU where there is one; nothing is fetched or unpickled."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        try:
            import transformers
            from transformers.utils import logging
        except ImportError:
            raise UserError(
                f"{folder} is a folder for transformers, which is not installed: pip install 'lossfrontier[posttrain]'"
            ) from None
        import torch

        if not is_model_folder(folder):
            raise UserError(
                f"{folder} is no model's folder: it has no config.json; give one that transformers can load"
            )
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        on_gpu = torch.cuda.is_available()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="auto" if on_gpu else torch.float32
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            said = str(error).strip().splitlines()
            raise UserError(
                f"{folder} can't be loaded as a model: {said[0] if said else type(error).__name__}"
            ) from None
        self._model: Any = model.to(torch.device("cuda" if on_gpu else "cpu")).eval()
        self.name = folder.resolve().name
        self.has_template = self._tokenizer.chat_template is not None
        limit = getattr(self._model.config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self.context = int(limit) if limit < 1e9 else None  # transformers says 1e30 for "no limit"
        ends = self._model.generation_config.eos_token_id
        self._ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id} - {None}

    def encode(self, messages: Sequence[Message]) -> list[int]:
        if self.has_template:
            said = [message.model_dump() for message in messages]
            return list(
                self._tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=True)[
                    "input_ids"
                ]
            )
        ids = list(self._tokenizer(_text(messages), add_special_tokens=False)["input_ids"])
        first = self._tokenizer.bos_token_id
        return ids if first is None else [first, *ids]

    def go_on(self, ids: Sequence[int], asked: Asked, *, seed: int, show: Callable[[str], None]) -> tuple[int, bool]:
        import torch
        from transformers.generation.streamers import BaseStreamer

        tokenizer, drawn, ends = self._tokenizer, list[int](), self._ends

        class Pieces(BaseStreamer):
            """Called by ``generate`` with the prompt, then with each token; a character in parts waits until whole."""

            def __init__(self) -> None:
                from tokenizers.decoders import DecodeStream

                self._stream, self._prompt, self.shown = DecodeStream(skip_special_tokens=True), True, ""

            def put(self, value: Any) -> None:
                if self._prompt:
                    self._prompt = False
                    return
                for token in value.flatten().tolist():
                    drawn.append(token)
                    self._show(self._stream.step(tokenizer.backend_tokenizer, token) or "")

            def end(self) -> None:
                whole = tokenizer.decode(drawn, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                if whole.startswith(self.shown):
                    self._show(whole[len(self.shown) :])

            def _show(self, text: str) -> None:
                self.shown += text
                if text:
                    show(text)

        most = asked.most_tokens if self.context is None else min(asked.most_tokens, self.context - len(ids))
        draws = (
            {"do_sample": True, "temperature": asked.temperature, "top_p": asked.top_p or 1.0, "top_k": 0}
            if asked.temperature > 0
            else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        )
        prompt = torch.tensor([list(ids)], device=self._model.device)
        with torch.inference_mode(), torch.random.fork_rng(devices=[prompt.device] if prompt.is_cuda else []):
            torch.manual_seed(seed)
            self._model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=most,
                eos_token_id=sorted(ends) or None,
                pad_token_id=min(ends, default=0),
                streamer=Pieces(),
                **draws,
            )
        return len(drawn), bool(drawn) and drawn[-1] in ends


class RunModel(LocalModel):
    """A run of ours, which is a base model; it needs no transformers."""

    has_template = False

    def __init__(self, run: TrainedRun, note: Callable[[str], None]) -> None:
        super().__init__()
        self._tokenizer, self._model, self._note = run.tokenizer, run.model(note), note
        self.context = run.spec.shape.context
        self.name = run.folder.name

    def encode(self, messages: Sequence[Message]) -> list[int]:
        from trainer.data.tokenizer import separator_id

        return [
            separator_id(self._tokenizer),
            *self._tokenizer.encode(_text(messages), add_special_tokens=False).ids,
        ]

    def go_on(self, ids: Sequence[int], asked: Asked, *, seed: int, show: Callable[[str], None]) -> tuple[int, bool]:
        from trainer.generate.decoding import generate
        from trainer.generate.sampling import Sampling
        from trainer.generate.text_stream import TextStream

        stream, drawn = TextStream(self._tokenizer), 0
        for token in generate(
            self._model,
            ids,
            Sampling(temperature=asked.temperature, top_p=asked.top_p),
            seed=seed,
            most=asked.most_tokens,
            stop=ids[0],
            note=self._note,
        ):
            drawn += 1
            if text := stream.add(token):
                show(text)
        if text := stream.end():
            show(text)
        return drawn, drawn < asked.most_tokens


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.content for message in messages)
