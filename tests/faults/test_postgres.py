"""The ledger on a real Postgres server of this test's own, for many hosts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from scaling.errors import UserError
from sweeps.execute_settings import LocalExecute
from sweeps.ledger.ledger import Ledger
from sweeps.workspace import Workspace

from .conftest import Outcome, Site, eventually, finish
from .test_studies import taken_by_two

psycopg = pytest.importorskip("psycopg", reason="an extra: pip install 'lossfrontier[postgres]'")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database; the server refuses to run as root and is run as nobody then."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("no Postgres server is installed here (initdb, postgres)")
    folder = tmp_path_factory.mktemp("postgres")
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        # That user must come through pytest's own folders, of which workers of xdist have one more.
        for within in [folder, *folder.parents]:
            if within == Path(tempfile.gettempdir()).resolve():
                break
            within.chmod(0o755)
        shutil.chown(folder, user)
    data = str(folder / "data")
    initdb = ["initdb", "-D", data, "-U", "scaling", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"]
    subprocess.run(initdb, check=True, user=user, stdout=subprocess.DEVNULL, cwd=folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    with subprocess.Popen(command, user=user, cwd=folder, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: _answers(port), seconds=60)
        yield f"postgresql+psycopg://scaling@127.0.0.1:{port}/postgres"
        process.terminate()


def _answers(port: int) -> bool:
    """The port is open before the server takes anyone in: "the database system is starting up"."""
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="scaling", dbname="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.slow
def test_two_processes_at_a_postgres_ledger_never_get_the_same_run(server: str) -> None:
    taken = taken_by_two(server, study_runs=4, rounds=20)
    assert len(taken) == 80
    assert set(taken.values()) == {1}


@pytest.mark.slow
def test_a_study_whose_ledger_is_on_postgres_ends_like_any_other_a_killed_worker_included(
    site: Site, control: Outcome, server: str
) -> None:
    (site.workspace / "ledger.db").unlink()
    site.write(ledger=server)
    engine = site.sweep()
    # Whoever looks earlier would make the file that the workspace then keeps.
    eventually((site.workspace / "ledger.url").exists)
    site.suspended().kill()
    finish(engine)
    assert not (site.workspace / "ledger.db").exists()
    assert Workspace(site.workspace).ledger_url == server
    site.assert_unharmed(control)
    assert [row.failure_kind for row in site.rows() if row.failures] == ["machine"]


def test_a_server_that_is_away_is_one_line() -> None:
    with pytest.raises(UserError, match=r"can't be reached: .*execute\.ledger") as caught:
        Ledger("postgresql+psycopg://scaling@127.0.0.1:9/postgres")
    assert "\n" not in str(caught.value)


def test_a_password_in_the_study_file_is_refused() -> None:
    with pytest.raises(ValidationError, match="pgpass"):
        LocalExecute(ledger="postgresql+psycopg://me:secret@host/database")
    assert LocalExecute(ledger="postgresql+psycopg://me@host:5432/database").ledger


def test_a_workspace_with_runs_keeps_its_ledger(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    Ledger(workspace.ledger_url).close()
    with pytest.raises(UserError, match="another --workspace"):
        workspace.use_ledger("postgresql+psycopg://me@host/database")
