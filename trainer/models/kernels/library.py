"""Builds the kernels for this processor, once, and calls them.

They are C++ without any header of PyTorch's, loaded with ctypes: built in seconds with whatever g++ or clang++ there
is.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["available", "call", "compute_dtype", "in_use", "used"]

_SOURCES = ("attention.cpp", "cross_entropy.cpp", "layers.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_TYPES = {"p": ctypes.c_void_p, "f": ctypes.c_float, "i": ctypes.c_int}
_SIGNATURES: dict[str, tuple[Any, str]] = {
    "attention_forward": (None, "pppppfiiiii"),
    "attention_backward": (None, "pppppppfiiiii"),
    "norm_forward": (None, "ppfpfpppii"),
    "norm_backward": (None, "pppppfpppii"),
    "swiglu_forward": (None, "ppii"),
    "swiglu_backward": (None, "pppii"),
    "cross_entropy": (ctypes.c_double, "ppfii"),
}
"""What each returns and takes: addresses (p), fp32 numbers (f), sizes (i)."""
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}

# A plain variable, since torch.compile can't look into a context variable; a process trains in one thread.
_used = False


@contextmanager
def used(use: bool) -> Iterator[None]:
    """Whether models run on these kernels inside."""
    global _used
    before, _used = _used, use
    try:
        yield
    finally:
        _used = before


def in_use(x: Tensor) -> bool:
    """True where ``x`` is to be computed on by these kernels."""
    return _used and x.device.type == "cpu" and x.dtype in _NAMES and compute_dtype(x) in _NAMES


def compute_dtype(x: Tensor) -> torch.dtype:
    """What the matrix products around take: autocast's precision if it is on, and that of ``x`` if not."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def call(name: str, dtype: torch.dtype, *arguments: Tensor | float | int | None) -> Any:
    """The kernel ``name`` for ``dtype``; tensors are handed over by address and must be contiguous."""
    return _function(name, dtype)(
        *[argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
    )


@cache
def _function(name: str, dtype: torch.dtype) -> Any:
    function = getattr(ctypes.CDLL(str(_built())), f"{name}_{_NAMES[dtype]}")
    result, arguments = _SIGNATURES[name]
    function.restype, function.argtypes = result, [_TYPES[letter] for letter in arguments]
    return function


@cache
def available() -> bool:
    """True if the kernels are built or can be."""
    try:
        _built()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@cache
def _built() -> Path:
    """The shared library for this source, compiler and processor; built if it is not in the cache yet."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "g++", "clang++"))), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    folder = Path(__file__).parent
    digest = hashlib.sha256(" ".join([*_FLAGS, compiler, _processor()]).encode())
    digest.update(subprocess.run([compiler, "--version"], check=True, capture_output=True).stdout)
    for name in ("vector.h", *_SOURCES):
        digest.update((folder / name).read_bytes())
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossfrontier" / "kernels"
    library = cached / f"{digest.hexdigest()[:32]}.so"
    if not library.exists():
        cached.mkdir(parents=True, exist_ok=True)
        # Several workers may build at once: each aside, and the last one stays.
        with tempfile.TemporaryDirectory(dir=cached) as aside:
            built = Path(aside) / library.name
            sources = [str(folder / name) for name in _SOURCES]
            subprocess.run([compiler, *_FLAGS, *sources, "-o", str(built)], check=True, capture_output=True)
            built.replace(library)
    return library


def _processor() -> str:
    """What -march=native looks at."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor()
    wanted = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part")
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    return "\n".join(line for line in first.splitlines() if line.split("\t")[0].strip() in wanted)
