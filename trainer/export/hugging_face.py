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

from scaling.errors import UserError
from trainer.data.tokenizer import separator_id
from trainer.export.converter import converter
from trainer.run_folder import TrainedRun
from trainer.whole_file import sync_folder, write_whole

__all__ = ["export"]


def export(run: TrainedRun, out: Path, *, force: bool, note: Callable[[str], None]) -> list[Path]:
    """Write ``run`` to the folder ``out``, which appears whole; returns its files.

    force: what lies in ``out`` is replaced, if it is an export. note: told if the weights are not the run's final ones.
    """
    convert = converter(run.spec.shape.architecture)
    _check_free(out, force=force)
    model = run.model(note)
    separator = separator_id(run.tokenizer)
    word = run.tokenizer.id_to_token(separator)
    ids = {"bos_token_id": separator, "eos_token_id": separator}
    weights = {name: weight.float().contiguous() for name, weight in convert.tensors(model).items()}
    files: dict[str, bytes] = {
        "config.json": _json(convert.config(model) | ids | {"dtype": "float32", "use_cache": True}),
        "generation_config.json": _json(ids | {"pad_token_id": separator, "do_sample": True, "temperature": 1.0}),
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "tokenizer.json": run.tokenizer_file.read_bytes(),
        "tokenizer_config.json": _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": word,
                "eos_token": word,
                "model_max_length": run.spec.shape.context,
                "clean_up_tokenization_spaces": False,
            }
        ),
        "special_tokens_map.json": _json({"bos_token": word, "eos_token": word}),
        "run_spec.json": _json(run.spec.model_dump(mode="json")),
    }
    try:
        _write(files, out)
    except OSError as error:
        raise UserError(f"--out {out} can't be written: {error.strerror}; choose another folder") from None
    return [out / name for name in files]


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
