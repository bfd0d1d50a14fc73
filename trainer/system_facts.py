"""What a run ran on and with: versions, processor, memory, the source tree's state. Recorded with every result.

No path, user or host is named. The values of a process don't change but for its threads, so they are found once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import torch
from pydantic import Field

from scaling.record import Record
from trainer.loop.numerics import processor_name

__all__ = ["SystemFacts", "installed_hash", "source_state", "system_facts"]

_DISTRIBUTION = "lossfrontier"
_GIT_SECONDS = 5.0
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


class SystemFacts(Record):
    package: str = Field(description="version of this package")
    git_commit: str | None = Field(default=None, description="of the source tree; None if it is no git checkout")
    git_dirty: bool | None = Field(default=None, description="whether tracked files differed from that commit")
    installed: str = Field(description="SHA-256 of the names and versions of all installed distributions")
    python: str
    torch: str
    numpy: str
    os: str
    processor: str
    gpu: str | None = Field(default=None, description="the first that torch sees")
    gpus: int = 0
    cuda: str | None = Field(default=None, description="version that torch was built for")
    driver: str | None = Field(default=None, description="version of the GPU's kernel module")
    threads: int = Field(description="intra-op threads of the process")
    cores: int = Field(description="logical cores that this process may run on")
    memory_bytes: int = Field(description="RAM of the machine")


def system_facts() -> SystemFacts:
    """The facts of this process, with its threads as they are now."""
    return _unchanging().model_copy(update={"threads": torch.get_num_threads()})


@cache
def _unchanging() -> SystemFacts:
    commit, dirty = source_state(Path(__file__).resolve().parents[1])
    seen = torch.cuda.is_available()
    return SystemFacts(
        package=_package_version(),
        git_commit=commit,
        git_dirty=dirty,
        installed=installed_hash(sys.path),
        python=platform.python_version(),
        torch=str(torch.__version__),
        numpy=np.__version__,
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=processor_name("cpu"),
        gpu=processor_name("cuda") if seen else None,
        gpus=torch.cuda.device_count() if seen else 0,
        cuda=torch.version.cuda,
        driver=_driver() if seen else None,
        threads=torch.get_num_threads(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )


def _package_version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a checkout that nobody installed
        return "not installed"


def installed_hash(folders: list[str]) -> str:
    """SHA-256 of the sorted ``name==version`` of what is installed in ``folders``; of two of one name the first counts.

    Read off the names of the ``.dist-info`` folders, which takes a millisecond where reading 200 of their files takes
    a hundred.
    """
    versions: dict[str, str] = {}
    for folder in dict.fromkeys(folders):
        # Ray puts a folder of its own copies onto the path once it is imported: nothing that was installed.
        if any(parent.name in ("site-packages", "dist-packages") for parent in Path(folder).parents):
            continue
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".dist-info"))
        except OSError:  # sys.path may name what isn't there
            continue
        for found in names:
            name, _, version = found.removesuffix(".dist-info").partition("-")
            versions.setdefault(name.lower().replace(".", "_"), version)
    listed = "\n".join(f"{name}=={version}" for name, version in sorted(versions.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def source_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit that ``folder`` is a checkout of, and whether its tracked files differ; None and None if it is none.

    A package that is installed somewhere inside another project's checkout is not that project's source: the commit
    counts only if it tracks this file.
    """
    tracked = _git(folder, "ls-files", "--error-unmatch", "--", "trainer/system_facts.py")
    status = tracked and _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".")
    if not status:
        return None, None
    lines = status.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    return None if commit == "(initial)" else commit, any(not line.startswith("#") for line in lines)


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a hook these variables name the hook's repository; and looking must take no lock from a commit under way.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _driver() -> str | None:
    try:
        first = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return None
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 ..."
    return next((word for word in first.split() if word[0].isdigit() and "." in word), None)
