"""Memory that a step gives back and the next one asks for again."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

__all__ = ["keep_freed_memory", "return_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_LARGEST_KEPT = 2**30


@cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the rest of the process, instead of handing it back to the kernel.

    A step frees its activations and asks for as many again: each page is then cleared and mapped anew, which takes 5 to
    10% of a step on a CPU. Does nothing with another C library.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def return_freed_memory() -> None:
    """Hand back once what glibc has kept, so that what is taken next can be seen from outside."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
