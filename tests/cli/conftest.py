"""The command line as its users meet it: a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def scaling(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scaling.cli.main", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120,
        env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip
