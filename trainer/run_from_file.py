"""From a run's file to its folder with everything in it: what ``scaling train`` does."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.data.corpus_settings import CorpusSettings
from trainer.data.prepare import prepare
from trainer.data.shards import Corpus
from trainer.distributed.world import ALONE, World
from trainer.loop.numerics import Numerics
from trainer.loop.result import RunResult
from trainer.loop.train import CHECKPOINT_SECONDS, train
from trainer.numerics_choice import NumericsWish
from trainer.run_file import RunFile
from trainer.run_folder import RunFolder, RunRecord
from trainer.tracker import NullTracker, Tracker, Trackers

__all__ = ["RunPlaces", "annealing_corpus", "run_corpus", "train_file"]

Progress = Callable[[str, float], None]


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
    world: World = ALONE,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> tuple[RunFolder, RunResult]:
    """Train the run that ``path`` describes to its end, from where its folder left it; a finished one is not touched.

    corpus: a tokenised corpus's folder, or a source in place of the file's. progress: told of what comes before
    training, with the share that is done. starting: told what is about to be trained, how, and in which folder. world:
    the processes that share the run; the first one prepares everything and writes it down, the others read it.
    checkpoint_seconds: between two checkpoints.
    """
    with ExitStack() as held:
        with world.first():
            file = RunFile(path)
            data = run_corpus(file, corpus, places.corpora, progress)
            later_data = annealing_corpus(file, data, places.corpora, progress)
            spec = file.spec(data, later_data)
            folder = RunFolder(places.out or places.runs / f"{file.name}-{spec.key[:8]}")
            if world.rank == 0:
                held.enter_context(folder.sole_trainer())
            before, result = folder.record(), folder.result()
            if before is not None and before.spec == spec and result is not None and result.status == "finished":
                return folder, result
            if world.rank == 0:
                world.check(spec, Numerics(parallel=wish.parallel, ranks=wish.ranks))
                if before is not None and wish.granted_by(before.numerics):
                    numerics, peak = before.numerics, before.peak_flops_per_second
                else:
                    numerics, peak = wish.choose(spec, places.cache, progress)
                corpus_folder = str(data.directory.resolve())
                before = RunRecord(
                    spec=spec,
                    numerics=numerics,
                    peak_flops_per_second=peak,
                    corpus=corpus_folder,
                    begun_at=time.time() if before is None else before.begun_at,
                )
                folder.begin(before, data)
            assert before is not None, "the first process has written it"
        starting(spec, before.numerics, folder.path)
        both = Trackers(folder.curve(), tracker) if world.rank == 0 else NullTracker()
        result = train(
            spec,
            data,
            before.numerics,
            directory=folder.path,
            tracker=both,
            should_stop=should_stop,
            checkpoint_seconds=checkpoint_seconds,
            annealing_corpus=later_data,
            peak_flops_per_second=before.peak_flops_per_second,
            world=world,
        )
        both.flush()
        if result.status != "interrupted" and world.rank == 0:
            folder.end(result)
    return folder, result


def run_corpus(file: RunFile, given: str | None, corpora: Path, progress: Progress) -> Corpus:
    """The corpus in tokens that the run is trained on, prepared if it is not there; ``given`` in the file's place."""
    if given is not None and (Path(given) / "manifest.json").is_file():
        found = Corpus(Path(given))
        found.check_sizes()
        return found
    wanted = file.corpus_settings(given)
    if wanted is not None:
        return prepare(**wanted.model_dump(), into=corpora, progress=progress)
    assert file.exact is not None
    return _kept(file.exact.data_key, corpora, "give --corpus with the tokenised corpus's folder or its source")


def annealing_corpus(file: RunFile, corpus: Corpus, corpora: Path, progress: Progress) -> Corpus | None:
    """What the run switches to, tokenised as ``corpus`` is."""
    if file.exact is not None:
        anneal = file.exact.anneal
        return None if anneal is None else _kept(anneal.data_key, corpora, "prepare the corpus that it switches to")
    wanted = file.annealing_settings()
    if wanted is None:
        return None
    held_out = corpus.manifest.held_out_share or CorpusSettings().held_out
    return prepare(
        wanted.source,
        vocabulary=corpus.manifest.vocabulary,
        held_out=held_out,
        cut_bytes=corpus.manifest.cut_bytes,
        text_key=wanted.text_key,
        tokenizer=corpus.directory / "tokenizer.json",
        into=corpora,
        progress=progress,
    )


def _kept(data_key: str, corpora: Path, remedy: str) -> Corpus:
    kept = corpora / data_key[:16]
    if not kept.is_dir():
        raise UserError(
            f"the run's corpus (data_key {data_key[:16]}) is not in {corpora}: {remedy}, or --workspace with the "
            "workspace of the study"
        )
    return Corpus(kept)
