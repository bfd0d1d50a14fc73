"""Event files as PyTorch's own writer leaves them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")

from torch.utils.tensorboard import SummaryWriter

from analysis.readers.logged import Asked
from analysis.readers.tensorboard_events import read_events
from scaling.errors import UserError
from scaling.table import read_table

from .conftest import Trained


@pytest.fixture(scope="module")
def folder(trained: list[Trained], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the runs with scalars of the second generation; hyperparameters in a folder below, as PyTorch does it."""
    folder = tmp_path_factory.mktemp("logs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at, run in enumerate(trained):
            writer = SummaryWriter(str(folder / f"run {at}"))
            for step, loss in enumerate(run.losses):
                writer.add_scalar("loss/validation", loss, step, new_style=at % 2 == 0)
            writer.add_scalar("tokens", run.tokens, len(run.losses) - 1)
            writer.add_text("note", "no number")
            writer.add_hparams({"n_params": run.params, "lr": run.lr, "tied": True, "kind": "llama"}, {"done": 1.0})
            writer.close()
    return folder


def test_each_run_has_its_hyperparameters_and_its_last_and_least_loss(folder: Path, trained: list[Trained]) -> None:
    logged = read_events(folder, Asked())
    columns = logged.columns_for({"loss": "metrics.loss/validation.min"})
    runs = read_table(logged.table(columns), columns=columns)
    assert sorted(zip(runs.params, runs.tokens, strict=True)) == sorted((run.params, run.tokens) for run in trained)
    assert sorted(runs.loss) == pytest.approx(sorted(min(run.losses) for run in trained), rel=1e-6)
    last = logged.frame.set_index("name")["metrics.loss/validation"]
    for at, run in enumerate(trained):
        assert last[f"run {at}"] == pytest.approx(run.losses[-1], rel=1e-6), "in single precision, as files have it"
    assert set(logged.frame["params.kind"]) == {"llama"} and set(logged.frame["params.tied"]) == {True}
    assert set(logged.frame["metrics.step"]) == {3}


def test_a_file_that_was_cut_off_is_read_up_to_there(folder: Path, tmp_path: Path) -> None:
    whole = next((folder / "run 0").glob("*tfevents*")).read_bytes()
    (tmp_path / "events.out.tfevents.1.cut").write_bytes(whole[: len(whole) - 40])
    logged = read_events(tmp_path, Asked())
    assert logged.frame["metrics.loss/validation"].tolist() != []


def test_a_folder_without_event_files_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no event files"):
        read_events(tmp_path, Asked())
    with pytest.raises(UserError, match="is not a folder"):
        read_events(tmp_path / "gone", Asked())


def test_what_can_t_be_guessed_is_answered_with_the_scalars_there_are(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = SummaryWriter(str(tmp_path / "only"))
        writer.add_scalar("perplexity", 12.0, 1)
        writer.close()
    with pytest.raises(UserError, match=r"no column for params, tokens, loss.*metrics\.perplexity"):
        read_events(tmp_path, Asked()).columns_for({})
