"""Supervised fine-tuning: cross-entropy on the answers' tokens alone, through TRL.

Examples are packed into rows (best fit decreasing, Ding et al. 2404.10830) in which no example attends to another: a
row's position numbers begin anew at each example, and transformers masks by them. Whether a model really keeps examples
apart is tried before it is trained so; a recurrent one doesn't, and gets a row an example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from scaling.record import Record
from trainer.posttrain.chat_template import Chat
from trainer.posttrain.examples import Example
from trainer.posttrain.stage import StageRun
from trainer.posttrain.trl_training import TrainingSettings, arguments, merged, train

__all__ = ["SFTSettings", "Tokenised", "answer_loss", "fine_tune", "keeps_examples_apart", "tokenise"]

_IGNORED = -100
_APART = 1e-3


class SFTSettings(TrainingSettings):
    """``batch`` counts rows of ``max_tokens``, which hold several examples if ``packing``."""

    learning_rate: float = Field(default=2e-5, gt=0, lt=1)
    epochs: float = Field(default=2, gt=0)
    batch: int = Field(default=16, ge=1)
    max_tokens: int | None = Field(default=None, ge=8)
    """Of a row; the model's context by default."""
    packing: bool = True


class Tokenised(Record):
    """``prompt`` and ``completion`` are token ids; ``bytes`` are the answer's, of UTF-8."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    bytes: int


def tokenise(rows: Sequence[Example], chat: Chat, max_tokens: int, note: Any) -> list[Tokenised]:
    """Those that fit ``max_tokens`` and imitate no special token; ``note`` is told how many did not."""
    kept, long, imitating = [], 0, 0
    for row in rows:
        answer = chat.completion(row.completion)
        if chat.imitates(answer, *(message.content for message in row.prompt)):
            imitating += 1
            continue
        prompt, completion = chat.prompt_ids(row.prompt), chat.completion_ids(answer)
        if len(prompt) + len(completion) > max_tokens:
            long += 1
            continue
        kept.append(Tokenised(prompt=tuple(prompt), completion=tuple(completion), bytes=len(answer.encode())))
    if long:
        note(f"{long:,} of {len(rows):,} examples are longer than {max_tokens} tokens: left out")
    if imitating:
        note(f"{imitating:,} of {len(rows):,} examples spell a special token: left out")
    return kept


def fine_tune(model: Any, chat: Chat, rows: Sequence[Tokenised], settings: SFTSettings, run: StageRun) -> Any:
    """The model after training on ``rows``, which is changed in place."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import pack_dataset

    length = settings.max_tokens or model.config.max_position_embeddings
    data = Dataset.from_dict(
        {
            "input_ids": [[*row.prompt, *row.completion] for row in rows],
            "labels": [[_IGNORED] * len(row.prompt) + list(row.completion) for row in rows],
        }
    )
    packing = settings.packing and keeps_examples_apart(model)
    if settings.packing and not packing:
        run.note(f"a {model.config.model_type} model carries one example into the next: not packed")
    if packing:
        # Shuffled before, since what is packed together stays together.
        data = pack_dataset(data.shuffle(seed=run.seed), seq_length=length, strategy="bfd")
    trainer = SFTTrainer(
        model,
        arguments(SFTConfig, settings, run, max_length=None, packing=False, remove_unused_columns=False),
        train_dataset=data,
        processing_class=chat.tokenizer,
        data_collator=_Rows(chat.tokenizer.pad_token_id),
        peft_config=settings.lora and settings.lora.config(),
    )
    return merged(train(trainer, run))


def answer_loss(model: Any, rows: Sequence[Tokenised], pad: int, batch: int = 32) -> dict[str, float]:
    """``loss_nats`` a token of the answers, end token and all, and their ``bits_per_byte``."""
    import torch

    collate = _Rows(pad)
    nats = torch.zeros((), dtype=torch.float64)
    tokens = 0
    was = model.training
    model.eval()
    for start in range(0, len(rows), batch):
        part = [
            {
                "input_ids": [*row.prompt, *row.completion],
                "labels": [_IGNORED] * len(row.prompt) + list(row.completion),
            }
            for row in rows[start : start + batch]
        ]
        inputs = {name: value.to(model.device) for name, value in collate(part).items()}
        labels_BT = inputs.pop("labels")
        with torch.no_grad():
            logits_BTV = model(**inputs, use_cache=False).logits.float()
        nats += torch.nn.functional.cross_entropy(
            logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=_IGNORED, reduction="sum"
        ).double()
        tokens += int((labels_BT[:, 1:] != _IGNORED).sum())
    model.train(was)
    total, size = float(nats), sum(row.bytes for row in rows)
    return {"loss_nats": total / tokens, "bits_per_byte": total / math.log(2) / size}


def keeps_examples_apart(model: Any) -> bool:
    """Whether two examples in one row give the logits that each gives alone."""
    import torch

    size = model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, size, (1, length), generator=generator) for length in (5, 7))
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            both = [torch.cat([first, second], dim=1)] * 2
            together = model(
                input_ids=torch.cat(both).to(model.device),
                position_ids=positions.repeat(2, 1).to(model.device),
                use_cache=False,
            ).logits
            alone = model(input_ids=second.to(model.device), use_cache=False).logits
    except TypeError:  # a model without position numbers
        return False
    finally:
        model.train(was)
    return bool((together[1, 5:] - alone[0]).abs().max() < _APART * alone.abs().max())


class _Rows:
    """Packed or single examples as a batch of rows: padded at the end, positions anew at each example.

    No attention mask is given: transformers takes a row's restarts for the borders of what may attend to what, and
    padding is one more example that no label asks for.
    """

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        filled: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for row in rows:
            spare = longest - len(row["input_ids"])
            lengths = [*row.get("seq_lengths", [len(row["input_ids"])]), spare]
            filled["input_ids"].append([*row["input_ids"], *[self._pad] * spare])
            filled["labels"].append([*row["labels"], *[_IGNORED] * spare])
            filled["position_ids"].append([place for length in lengths for place in range(length)])
        return {name: torch.tensor(values) for name, values in filled.items()}
