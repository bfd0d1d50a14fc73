"""From a run's file to its folder with everything in it: what ``scaling train`` does."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from scaling.architectures import total_params
from scaling.errors import UserError
from scaling.quantity import format_count
from scaling.run_spec import RunSpec
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.train import train
from trainer.numerics_choice import NumericsWish
from trainer.run_file import RunFile
from trainer.run_folder import RunFolder, RunRecord
from trainer.tracker import Tracker, Trackers

__all__ = ["RunPlaces", "train_file"]

Progress = Callable[[str, float], None]

BYTES_A_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, fp32."""
FEWEST_BYTES_A_PARAMETER = 12
"""The same under Muon, which keeps one moment of most parameters."""


@dataclass(frozen=True)
class RunPlaces:
    """Where what a run needs and leaves lies."""

    corpora: Path
    runs: Path
    cache: Path
    out: Path | None = None
    """The run's folder; by default one within ``runs`` named by its file and its key."""


def train_file(
    path: Path,
    corpus: str | None,
    places: RunPlaces,
    wish: NumericsWish,
    *,
    tracker: Tracker,
    progress: Progress,
    starting: Callable[[RunSpec, Numerics, Path], None],
    should_stop: Callable[[], bool],
) -> tuple[RunFolder, RunResult]:
    """Train the run that ``path`` describes to its end, from where its folder left it; a finished one is not touched.

    corpus: a tokenised corpus's folder, or a source in place of the file's. progress: told of what comes before
    training, with the share that is done. starting: told what is about to be trained, how, and in which folder.
    """
    file = RunFile(path)
    data = _corpus(file, corpus, places.corpora, progress)
    spec = file.spec(data)
    _check_memory(spec, wish)
    folder = RunFolder(places.out or places.runs / f"{file.name}-{spec.key[:8]}")
    with folder.sole_trainer():
        before, result = folder.record(), folder.result()
        if before is not None and before.spec == spec and result is not None and result.status == "finished":
            return folder, result
        numerics = (
            before.numerics
            if before is not None and wish.granted_by(before.numerics)
            else wish.choose(spec, places.cache, progress)
        )
        folder.begin(RunRecord(spec=spec, numerics=numerics, corpus=str(data.directory.resolve())), data)
        starting(spec, numerics, folder.path)
        both = Trackers(folder.curve(), tracker)
        result = train(spec, data, numerics, directory=folder.path, tracker=both, should_stop=should_stop)
        both.flush()
        if result.status != "interrupted":
            folder.end(result)
    return folder, result


def _corpus(file: RunFile, given: str | None, corpora: Path, progress: Progress) -> Corpus:
    if given is not None and (Path(given) / "manifest.json").is_file():
        found = Corpus(Path(given))
        found.check_sizes()
        return found
    wanted = file.corpus_settings(given)
    if wanted is not None:
        if given is None:
            file.check_source(wanted)
        return prepare(**wanted.model_dump(), into=corpora, progress=progress)
    assert file.exact is not None
    kept = corpora / file.exact.data_key[:16]
    if kept.is_dir():
        return Corpus(kept)
    raise UserError(
        f"the run's corpus (data_key {file.exact.data_key[:16]}) is not in {corpora}: give --corpus with the tokenised "
        "corpus's folder or its source, or --workspace with the study's workspace"
    )


def _check_memory(spec: RunSpec, wish: NumericsWish) -> None:
    """:class:`UserError` if weights, gradients and the optimizer's state alone exceed the device's memory."""
    if wish.device == "cuda" or (wish.device is None and torch.cuda.is_available()):
        there = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else math.inf
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    params = total_params(spec.shape)
    needed = params * (FEWEST_BYTES_A_PARAMETER if spec.optimizer.name == "muon" else BYTES_A_PARAMETER)
    if needed > there:
        raise UserError(
            f"the run's {format_count(params)} parameters need {needed / 1e9:,.0f} GB for weights, gradients and the "
            f"optimizer's state, and this device has {there / 1e9:,.0f} GB: train it where they fit"
        )
