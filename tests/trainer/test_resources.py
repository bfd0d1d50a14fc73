"""The peak of memory is that of this process and, where the kernel can reset its mark, of this run."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from trainer.loop.resources import peak_memory_bytes

MEBIBYTE = 2**20

SCRIPT = """
import os
from trainer.loop.resources import _CLEAR, peak_memory_bytes, reset_peak_memory
block = b"x" * 300_000_000
with_block = peak_memory_bytes("cpu")
del block
after_block = peak_memory_bytes("cpu")
reset_peak_memory("cpu")
print(with_block, after_block, peak_memory_bytes("cpu"), int(os.access(_CLEAR, os.W_OK)))
"""


def test_what_was_freed_counts_until_the_next_run_begins() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    with_block, after_block, after_reset, can_reset = map(int, done.stdout.split())
    assert with_block > 300_000_000
    assert after_block > with_block - 4 * MEBIBYTE  # the kernel counts pages in batches
    if can_reset:
        assert after_reset < with_block - 250_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="what a parent hands on is Linux's way of counting")
def test_a_large_parent_does_not_count() -> None:
    block = b"x" * (200 * MEBIBYTE)
    # Without torch, so that the child is far smaller than this process.
    code = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    code += "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    handed_on, own = (int(number) * 1024 for number in done.stdout.split())
    assert own < 100 * MEBIBYTE < len(block)
    assert peak_memory_bytes("cpu") >= psutil.Process().memory_info().rss - MEBIBYTE
    assert handed_on >= own
