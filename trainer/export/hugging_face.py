"""A run as a folder that transformers loads: ``AutoModelForCausalLM`` and ``AutoTokenizer.from_pretrained``.

Token ids are those of training, but for text that spells a special token: there it is text, in transformers by
convention the special token.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import Tokenizer

from scaling.errors import UserError
from trainer.data.tokenizer import separator_id
from trainer.export.converter import converter
from trainer.run_folder import TrainedRun
from trainer.whole_file import sync_folder, write_whole

__all__ = ["configuration_files", "export"]


def export(run: TrainedRun, out: Path, *, force: bool, note: Callable[[str], None]) -> list[Path]:
    """Write ``run`` to the folder ``out``, which appears whole; returns its files.

    force: what lies in ``out`` is replaced, if it is an export. note: told if the weights are not the run's final ones.
    """
    convert = converter(run.spec.shape.architecture)
    _check_free(out, force=force)
    model = run.model(note)
    weights = {name: weight.float().contiguous() for name, weight in convert.tensors(model).items()}
    files = {
        **configuration_files(convert.config(model), run.tokenizer, run.tokenizer_file, run.spec.shape.context),
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "run_spec.json": _json(run.spec.model_dump(mode="json")),
    }
    try:
        _write(files, out)
    except OSError as error:
        raise UserError(f"--out {out} can't be written: {error.strerror}; choose another folder") from None
    return [out / name for name in files]


def configuration_files(
    config: dict[str, Any], tokenizer: Tokenizer | None, tokenizer_file: Path | None, context: int
) -> dict[str, bytes]:
    """All but the weights, by file name. ``config`` is the converter's; without a tokenizer it stands alone."""
    general = {"dtype": "float32", "use_cache": True}
    if tokenizer is None or tokenizer_file is None:
        return {"config.json": _json(config | general)}
    separator = separator_id(tokenizer)
    word = tokenizer.id_to_token(separator)
    ids = {"bos_token_id": separator, "eos_token_id": separator}
    return {
        "config.json": _json(config | ids | general),
        "generation_config.json": _json(ids | {"pad_token_id": separator, "do_sample": True, "temperature": 1.0}),
        "tokenizer.json": tokenizer_file.read_bytes(),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": word,
                "eos_token": word,
                "model_max_length": context,
                "clean_up_tokenization_spaces": False,
            }
        ),
        "special_tokens_map.json": _json({"bos_token": word, "eos_token": word}),
    }


def _check_free(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not force:
        raise UserError(f"--out {out} already exists: choose another folder, or give --force to replace it")
    if not (out / "run_spec.json").is_file() and any(out.iterdir() if out.is_dir() else [out]):
        raise UserError(f"--out {out} is no export, and --force replaces exports alone: choose another folder")


def _write(files: dict[str, bytes], out: Path) -> None:
    """Filled beside its place, then renamed into it; an export that lies there is moved aside first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        for name, content in files.items():
            write_whole(new / name, content)
        sync_folder(new)
        if out.exists():
            out.rename(old)
        new.rename(out)
        sync_folder(out.parent)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
