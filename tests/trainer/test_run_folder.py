"""A run's folder: what is needed later is in it, one process trains there, a curve has each point once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from scaling.errors import UserError
from scaling.run_spec import RunSpec
from trainer.loop.numerics import Numerics
from trainer.numerics_choice import NumericsWish
from trainer.run_folder import CurveFile, RunFolder
from trainer.run_from_file import RunPlaces, train_file
from trainer.tracker import RecordingTracker

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "rat"]
RUN = """
model: {layers: 1, width: 16, heads: 2, ffn_width: 32, context: 16}
tokens: 1280
global_batch_tokens: 64
optimizer: {learning_rate: 1e-2}
corpus: {source: SOURCE, vocabulary: 260, held_out: 0.3, cut_bytes: 256}
"""
PLAIN = NumericsWish(precision="fp32", compiled=False, device="cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    text = tmp_path / "text"
    text.mkdir()
    for number in range(120):
        words = (WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(60))
        (text / f"{number}.txt").write_text(" ".join(words) + f" {number}.")
    path = tmp_path / "mine.yaml"
    path.write_text(RUN.replace("SOURCE", str(text)))
    return path


class Launch:
    """``train_file`` with everything in one folder; how far the runs were and what was said is kept."""

    def __init__(self, folder: Path) -> None:
        self.places = RunPlaces(corpora=folder / "corpora", runs=folder / "runs", cache=folder / "cache")
        self.started: list[tuple[RunSpec, Numerics, Path]] = []
        self.tracker = RecordingTracker()

    def __call__(self, file: Path, *, wish: NumericsWish = PLAIN, stop_after: int | None = None, **places: Path):  # type: ignore[no-untyped-def]
        calls = itertools.count()
        return train_file(
            file,
            None,
            RunPlaces(**(vars(self.places) | places)),
            wish,
            tracker=self.tracker,
            progress=lambda what, share: None,
            starting=lambda *what: self.started.append(what),
            should_stop=lambda: stop_after is not None and next(calls) >= stop_after,
        )


def learned(folder: RunFolder) -> list[str]:
    """The curve but for speeds."""
    rows = (folder.path / "curve.csv").read_text().splitlines()
    return [row for row in rows if row.split(",")[3] not in ("tokens_per_second", "mfu")]


def test_stopped_and_started_again_a_run_ends_as_if_it_never_stopped(file: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    whole, result = launch(file, out=tmp_path / "whole")
    parts, stopped = launch(file, stop_after=7)
    assert stopped.status == "interrupted" and parts.result() is None
    parts, resumed = launch(file)
    assert resumed.status == "finished" and resumed.resumed == 1
    assert resumed.weights_hash == result.weights_hash
    assert learned(parts) == learned(whole) and len(learned(whole)) > 20
    assert parts.result() == resumed
    trained = parts.trained()
    assert trained.spec == launch.started[0][0]
    assert trained.model(note=pytest.fail) is not None
    assert trained.tokenizer.get_vocab_size() == 260


def test_a_finished_run_is_not_trained_again(file: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    folder, result = launch(file)
    before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    again, same = launch(file)
    assert same == result and again.path == folder.path
    assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before
    assert len(launch.started) == 1


def test_a_run_goes_on_as_it_was_begun_unless_something_else_is_asked_for(file: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    launch(file, wish=PLAIN.model_copy(update={"micro_batch_sequences": 2}), stop_after=3)
    launch(file, wish=NumericsWish(), stop_after=3)
    assert launch.started[1][1] == launch.started[0][1]
    launch(file, wish=PLAIN.model_copy(update={"micro_batch_sequences": 1}))
    assert launch.started[2][1].micro_batch_sequences == 1
    assert any("numerics changed at step" in note for note in launch.tracker.notes)


def test_another_run_in_the_folder_is_refused(file: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    launch(file, out=tmp_path / "out", stop_after=1)
    file.write_text(file.read_text().replace("1e-2", "2e-2"))
    with pytest.raises(UserError, match="give another folder"):
        launch(file, out=tmp_path / "out")
    launch(file, stop_after=1)
    assert len({started[2] for started in launch.started}) == 2


def test_annealing_data_is_tokenised_as_the_runs_own(file: Path, tmp_path: Path) -> None:
    launch = Launch(tmp_path)
    better = tmp_path / "better"
    better.mkdir()
    for number in range(120):
        (better / f"{number}.txt").write_text(f"a rat and a cat, {number}: " * 12)
    file.write_text(file.read_text() + f"anneal: {{source: {better}, start: 0.5}}\n")
    _, result = launch(file)
    spec = launch.started[0][0]
    assert result.status == "finished"
    assert spec.anneal is not None and spec.anneal.data_key != spec.data_key
    assert spec.anneal.from_tokens == 640


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run").sole_trainer(),
        pytest.raises(UserError, match="another process is training"),
        RunFolder(tmp_path / "run").sole_trainer(),
    ):
        pass


def test_a_curve_keeps_each_point_once_and_loses_a_torn_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    first = CurveFile(path)
    first.metrics(1, 64, 1e6, {"train_loss": 5.0, "learning_rate": 0.1})
    first.flush()
    whole = path.read_text()
    with path.open("a") as file:
        file.write("2,128,2e6,train_l")
    again = CurveFile(path)
    again.metrics(1, 64, 1e6, {"train_loss": 5.0, "learning_rate": 0.1})
    again.flush()
    assert path.read_text() == whole
    again.metrics(1, 64, 1e6, {"train_loss": 4.0})
    again.flush()
    assert path.read_text() == whole + "1,64,1000000.0,train_loss,4.0\n"
