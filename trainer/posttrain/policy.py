"""A policy: a causal language model in a folder that transformers loads, an export of ours or from elsewhere."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from scaling.errors import UserError
from scaling.record import Record
from trainer.data.atomic_folder import partial_folder, publish

__all__ = ["Lora", "folder_fingerprint", "libraries", "load_policy", "load_tokenizer", "quietly", "save_model"]

_WHAT_COUNTS = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "*.jinja")


class Lora(Record):
    """Low-rank adapters (Hu et al. 2106.09685) on every linear layer; the model that is saved has them merged."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"

    def config(self, task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM") -> Any:
        from peft import LoraConfig

        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets, task_type=task
        )


def libraries() -> dict[str, str]:
    """The versions of what post-training stands on; :class:`UserError` if it isn't installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {name: version(name) for name in ("torch", "transformers", "trl", "peft", "datasets", "accelerate")}
    except PackageNotFoundError as error:
        raise UserError(f"post-training needs {error.name}: pip install 'lossfrontier[posttrain]'") from None


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing on the screen but what we say: the libraries' bars and notes are for their own users."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Read once, when tqdm is imported; TRL's bar over the reference has no switch.
    os.environ.setdefault("TQDM_DISABLE", "1")
    import datasets
    from transformers.utils import logging as notes

    # A bar of the libraries' would stand in the middle of ours.
    datasets.disable_progress_bars()
    notes.disable_progress_bar()  # type: ignore[no-untyped-call]
    notes.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for category in (FutureWarning, UserWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=r"(trl|transformers|accelerate|peft|torch)\b.*")
        yield


def load_tokenizer(folder: Path) -> Any:
    """:class:`UserError` if the folder has none.

    Its padding is a token that no text has: heads that read the last token which is no padding would else read a
    finished answer before its end.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} has no tokenizer that transformers loads: {_first_line(error)}") from None
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        # The byte FF is in no UTF-8; byte-level tokenizers write it so.
        other = "ÿ" if "ÿ" in tokenizer.get_vocab() else tokenizer.unk_token
        tokenizer.pad_token = other or tokenizer.eos_token
    return tokenizer


def load_policy(folder: Path) -> Any:
    """The model in float32; :class:`UserError` if the folder holds none."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no causal language model's folder: {_first_line(error)}") from None


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Both in the Hugging Face layout; the folder appears whole."""
    with partial_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        publish(partial, folder)


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 of the model's and the tokenizer's files by name; :class:`UserError` if there is no model."""
    found = sorted({path for pattern in _WHAT_COUNTS for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in found):
        raise UserError(f"{folder} holds no *.safetensors: give a folder in the Hugging Face layout (`scaling export`)")
    total = hashlib.sha256()
    for path in found:
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
