"""What a run ran on is said without saying whose machine it was, and a commit is only claimed for our own source."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from trainer.system_facts import installed_hash, source_state, system_facts


def test_the_facts_are_this_process_s() -> None:
    facts = system_facts()
    assert facts.torch == torch.__version__
    assert facts.python == platform.python_version()
    assert 0 < facts.cores <= (os.cpu_count() or 1)
    assert facts.memory_bytes > 2**28
    assert len(facts.installed) == 64
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert system_facts() == facts.model_copy(update={"threads": threads + 1})
    finally:
        torch.set_num_threads(threads)


def test_no_path_user_or_host_is_named() -> None:
    text = system_facts().model_dump_json()
    assert "/home" not in text
    for name in (str(Path.home()), str(Path.cwd()), socket.gethostname(), f'"{getpass.getuser()}"'):
        assert name not in text


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "system_facts.py").write_text("1", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_a_checkout_has_its_commit_and_is_dirty_when_a_tracked_file_differs(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert source_state(checkout) == (commit, False)
    (checkout / "notes.txt").write_text("untracked", encoding="utf-8")
    assert source_state(checkout) == (commit, False)
    (checkout / "trainer" / "system_facts.py").write_text("2", encoding="utf-8")
    assert source_state(checkout) == (commit, True)
    git(checkout, "add", "trainer")
    assert source_state(checkout) == (commit, True)
    git(checkout, "commit", "-q", "-m", "two")
    assert source_state(checkout) == (git(checkout, "rev-parse", "HEAD"), False)


def test_a_package_inside_another_project_s_checkout_has_no_commit(checkout: Path, tmp_path: Path) -> None:
    installed = checkout / "venv" / "site-packages"
    (installed / "trainer").mkdir(parents=True)
    (installed / "trainer" / "system_facts.py").write_text("1", encoding="utf-8")
    assert source_state(installed) == (None, None)
    assert source_state(tmp_path) == (None, None)


def test_a_hook_s_repository_or_a_missing_git_does_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = source_state(checkout)
    monkeypatch.setenv("GIT_DIR", str(checkout / "nowhere"))
    assert source_state(checkout) == expected
    monkeypatch.setenv("PATH", "")
    assert source_state(checkout) == (None, None)


def test_the_hash_is_of_what_is_installed_wherever_it_lies(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    (first / "numpy-2.4.6.dist-info").mkdir()
    (second / "torch-2.13.0+cpu.dist-info").mkdir()
    both = installed_hash([str(first), str(second), str(tmp_path / "nowhere"), ""])
    assert installed_hash([str(second), str(first)]) == both
    # What is found first is what is imported.
    (second / "numpy-1.0.dist-info").mkdir()
    assert installed_hash([str(first), str(second)]) == both
    assert installed_hash([str(second), str(first)]) != both
    (first / "numpy-2.4.6.dist-info").rename(first / "numpy-2.4.7.dist-info")
    assert installed_hash([str(first), str(second)]) != both


def test_copies_inside_an_installed_package_change_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    (site / "ray" / "thirdparty_files" / "psutil-1.dist-info").mkdir(parents=True)
    (site / "ray-2.dist-info").mkdir()
    alone = installed_hash([str(site)])
    assert installed_hash([str(site / "ray" / "thirdparty_files"), str(site)]) == alone
