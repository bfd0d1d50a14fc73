"""Where everything lies: one folder holds the ledger, the corpora, the runs, the studies and the MLflow store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scaling.errors import UserError
from trainer.whole_file import write_whole

__all__ = ["Workspace", "cache_folder", "shown"]


def cache_folder() -> Path:
    """Where what belongs to the machine and not to a workspace is kept (the XDG convention): calibration, kernels."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossfrontier"


def shown(path: Path) -> str:
    """``path`` as a person would type it: relative to the current folder where it lies inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


class Workspace:
    """The folder that studies share, so that a run trained for one is never trained again for another."""

    def __init__(self, root: Path) -> None:
        """Open or create the workspace in ``root``; :class:`UserError` if it can't be written to."""
        self.root = root.resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workspace {root} can't be created: {error.strerror}; choose another folder") from None
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise UserError(f"--workspace {root} is not writable; choose another folder")

    @property
    def ledger_url(self) -> str:
        """The file in the workspace, or the server that its first study with ``execute.ledger`` named."""
        named = self._ledger_name
        return named.read_text(encoding="utf-8").strip() if named.exists() else f"sqlite:///{self.root / 'ledger.db'}"

    @property
    def has_ledger(self) -> bool:
        """Whether a study was ever planned here."""
        return self._ledger_name.exists() or (self.root / "ledger.db").exists()

    @property
    def _ledger_name(self) -> Path:
        return self.root / "ledger.url"

    def use_ledger(self, url: str | None) -> None:
        """Keep the ledger at ``url`` from now on, where the workspace has none yet; None takes what there is.

        Raises :class:`UserError` if it has another: the runs would be trained a second time.
        """
        if url is None or url == self.ledger_url:
            return
        if self.has_ledger:
            there = self.ledger_url if self._ledger_name.exists() else "ledger.db"
            raise UserError(
                f"execute.ledger is {url}, and {self.root} has its runs in {there}: use another --workspace"
            )
        write_whole(self._ledger_name, url + "\n")

    @property
    def corpora(self) -> Path:
        return self.root / "corpora"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def forecasts(self) -> Path:
        """The witnesses of the forecasts that the ledger holds (``sweeps.ledger.registry``)."""
        return self.root / "forecasts.jsonl"

    @property
    def trained(self) -> Path:
        """Runs of their own, which no study planned."""
        return self.root / "trained"

    @property
    def post_trained(self) -> Path:
        """The stages of post-training, each by its kind and key."""
        return self.root / "posttrain"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def run_folder(self, key: str) -> Path:
        return self.runs / key[:16]

    def link_run_folder(self, key: str, folder: Path) -> None:
        """Make ``folder``, in which `scaling train` trains the run, the one that its key leads to."""
        link = self.run_folder(key)
        if link.exists() and not link.is_symlink():
            return
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)

    def study_folder(self, name: str) -> Path:
        return self.root / "studies" / name

    def tracking_uri(self, uri: str) -> str:
        """``uri`` with a relative SQLite path laid in the workspace; any other URI as it is."""
        prefix = "sqlite:///"
        if uri.startswith(prefix) and not uri.startswith(prefix + "/"):
            return f"{prefix}{self.root / uri.removeprefix(prefix)}"
        return uri

    def artifacts_uri(self, uri: str) -> str | None:
        """Where MLflow keeps files: in the workspace for a database of its own, wherever a server puts them otherwise.

        Left to itself, MLflow would put them into ``./mlruns`` of whichever folder the command was started in.
        """
        return None if uri.startswith(("http://", "https://", "databricks")) else (self.root / "mlartifacts").as_uri()

    @contextmanager
    def conducting(self, study: str, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the study's lock, calling ``on_wait`` once if somebody else has it and must be waited for.

        The kernel releases the lock when its holder dies, however it dies.
        """
        folder = self.study_folder(study)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
