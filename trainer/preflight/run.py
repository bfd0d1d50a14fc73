"""All checks of one run, cheap ones first; whatever is written goes to a folder beside the run's and is removed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from scaling.record import Interval, Record
from scaling.run_spec import RunSpec
from trainer.data.run_data import RunData
from trainer.data.shards import Corpus
from trainer.data.source import open_source
from trainer.distributed.world import ALONE, World
from trainer.loop.memory import device_memory
from trainer.loop.numerics import Numerics
from trainer.loop.run import Diverged
from trainer.loop.step import OutOfMemory
from trainer.numerics_choice import NumericsWish
from trainer.preflight.check import Check, Preflight, not_tried
from trainer.preflight.checkpoint import check_checkpoint, checkpoint_refused
from trainer.preflight.data import check_data
from trainer.preflight.disk import check_corpus_room, check_disk, checkpoint_bytes
from trainer.preflight.finish import project_finish
from trainer.preflight.first_steps import check_first_steps
from trainer.preflight.folder import check_folder
from trainer.preflight.memory import check_memory
from trainer.preflight.restart import check_restart
from trainer.preflight.trial import Trial
from trainer.run_file import RunFile
from trainer.run_folder import RunFolder
from trainer.run_from_file import RunPlaces, annealing_corpus, run_corpus
from trainer.whole_file import write_whole

__all__ = ["preflight"]

Progress = Callable[[str, float], None]

_TRIED = ("memory", "first steps", "checkpoint", "restart", "finish")


class _Chosen(Record):
    """What the first process decided, for the others to read."""

    numerics: Numerics | None
    refused: str | None = None


def preflight(
    path: Path,
    corpus: str | None,
    places: RunPlaces,
    wish: NumericsWish,
    *,
    progress: Progress,
    checkpoint_seconds: float,
    world: World = ALONE,
) -> Preflight:
    """Try the run that ``path`` describes as :func:`trainer.run_from_file.train_file` would train it, without training
    it: the run's folder is read and not touched. Text is prepared as training would need it, and stays prepared.

    The first process's result is the one to be shown. Raises :class:`UserError` where the file itself is wrong.
    """
    began = time.monotonic()
    with ExitStack() as held:
        with world.first():
            file = RunFile(path)
            room = _corpus_room(file, corpus, places.corpora)
            if room is not None and room.status == "fail":
                rest = not_tried(("data", "folder", *_TRIED), "the corpus can't be prepared")
                return Preflight(
                    run_key=None, processes=world.ranks, checks=(room, *rest), finish_seconds=None,
                    numerics=None, seconds=time.monotonic() - began,
                )  # fmt: skip
            data = run_corpus(file, corpus, places.corpora, progress)
            later = annealing_corpus(file, data, places.corpora, progress)
            spec = file.spec(data, later)
            folder = RunFolder(places.out or places.runs / f"{file.name}-{spec.key[:8]}")
            checks = [check_data(spec, data, later)]
            scratch = folder.path.absolute().with_name(f".{folder.path.name}.preflight")
            if world.rank == 0:
                held.enter_context(_emptied(scratch))
                if checks[0].status != "fail" or checks[0].figures:
                    write_whole(scratch / "chosen.json", _choose(spec, wish, world, places, progress).model_dump_json())
        done_steps = 0
        if world.rank == 0:
            of_folder, done_steps = check_folder(folder, spec)
            checks.append(of_folder)
        numerics, finish = None, None
        chosen = _read(scratch / "chosen.json")
        if chosen is None:
            checks += not_tried(("disk", *_TRIED), "the corpus is not the run's")
        elif chosen.numerics is None:
            said = chosen.refused or "no numerics were found"
            checks.append(_disk(spec, folder, data, checkpoint_bytes(spec)))
            checks.append(Check(name="memory", status="fail", said=said))
            checks += not_tried(_TRIED[1:], "the run does not fit into memory")
        else:
            numerics = chosen.numerics
            tried, finish = _try(
                spec, RunData(spec, data, later), data, folder, numerics, scratch / "run", world, progress,
                done_steps, checkpoint_seconds,
            )  # fmt: skip
            checks += tried
        # The scratch folder is the first process's to remove, once nobody reads it.
        world.wait()
    return Preflight(
        run_key=spec.key,
        numerics=None if numerics is None else numerics.label,
        processes=world.ranks,
        checks=tuple(checks),
        finish_seconds=finish,
        seconds=time.monotonic() - began,
    )


def _try(
    spec: RunSpec,
    run_data: RunData,
    corpus: Corpus,
    folder: RunFolder,
    numerics: Numerics,
    scratch: Path,
    world: World,
    progress: Progress,
    done_steps: int,
    checkpoint_seconds: float,
) -> tuple[list[Check], Interval | None]:
    """The checks that take real steps."""
    disk = _disk(spec, folder, corpus, checkpoint_bytes(spec))
    available = device_memory(numerics.device)
    rows = numerics.micro_batch_sequences or spec.sequences_per_step // numerics.ranks
    estimated = check_memory(spec, numerics, available, None, rows)
    # What one process finds of its machine, all act upon.
    if world.any(estimated.status == "fail"):
        return [disk, estimated, *not_tried(_TRIED[1:], "the run does not fit into memory")], None
    trial = Trial(spec, run_data, numerics, scratch, world, progress)
    try:
        first = trial.first()
    except OutOfMemory as error:
        failed = estimated.model_copy(update={"status": "fail", "said": str(error)})
        return [disk, failed, *not_tried(_TRIED[1:], "the run does not fit into memory")], None
    except Diverged as error:
        steps = Check(name="first steps", status="fail", said=str(error), remedy="lower the learning rate")
        return [disk, estimated, steps, *not_tried(_TRIED[2:], "the run diverges")], None
    checks = [
        disk,
        check_memory(spec, numerics, available, trial.peak_bytes, trial.micro_batch),
        check_first_steps(spec, first),
    ]
    if first.bad_step is not None:
        return [*checks, *not_tried(_TRIED[2:], "the run diverges")], None
    if world.any(disk.status == "fail"):
        return [*checks, *not_tried(_TRIED[2:], "there is no room for checkpoints")], None
    try:
        waited, whole, size = trial.save()
    except OSError as error:
        return [
            *checks,
            checkpoint_refused(error, checkpoint_bytes(spec)),
            *not_tried(_TRIED[3:], "nothing was saved"),
        ], None
    checks[0] = _disk(spec, folder, corpus, size)
    checks.append(check_checkpoint(waited, whole, size, checkpoint_seconds))
    saved_at = len(first.losses)
    straight = trial.go_on()
    found_at, seconds, again = trial.restart(len(straight.losses))
    checks.append(check_restart(saved_at, found_at, straight, again, seconds, size, trial.notes.said))
    timed = [*first.seconds[1:], *straight.seconds, *again.seconds[1:]] or first.seconds
    share = 1.0
    if numerics.device == "cpu":
        computed = [*first.computed_seconds[1:], *straight.computed_seconds, *again.computed_seconds[1:]]
        share = min(1.0, sum(computed) / (sum(timed) * numerics.threads)) if computed else 1.0
    finish, interval = project_finish(spec, done_steps, timed, waited, checkpoint_seconds, share)
    return [*checks, finish], interval


def _choose(spec: RunSpec, wish: NumericsWish, world: World, places: RunPlaces, progress: Progress) -> _Chosen:
    """Numerics as training would choose them, but for a folder's own."""
    world.check(spec, Numerics(parallel=wish.parallel, ranks=wish.ranks))
    try:
        return _Chosen(numerics=wish.choose(spec, places.cache, progress)[0])
    except OutOfMemory as error:
        return _Chosen(numerics=None, refused=str(error))


def _read(path: Path) -> _Chosen | None:
    try:
        return _Chosen.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _disk(spec: RunSpec, folder: RunFolder, corpus: Corpus, checkpoint: int) -> Check:
    size = sum(file.size_bytes for file in corpus.manifest.files)
    return check_disk(spec, folder.path, checkpoint, size)


def _corpus_room(file: RunFile, corpus: str | None, corpora: Path) -> Check | None:
    """None where the corpus is in tokens already, or the embedded one."""
    if corpus is not None and (Path(corpus) / "manifest.json").is_file():
        return None
    wanted = file.corpus_settings(corpus)
    if wanted is None:
        return None
    text = sum(path.stat().st_size for path in open_source(wanted.source, wanted.text_key, wanted.domain_key).paths)
    return check_corpus_room(text, corpora)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """``folder`` for this process alone, empty now and gone afterwards."""
    with RunFolder(folder).sole_trainer():
        for leftover in folder.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover)
            elif leftover.name != ".lock":
                leftover.unlink()
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
