"""How a run computes: device, precision, compilation, threads. Recorded beside every run, and no part of its identity.

Runs are equal to the bit within one ``Numerics`` value on one machine, and agree within a tolerance that
``tests/trainer/test_numerics.py`` states across them.
"""

from __future__ import annotations

import os
import platform
import shutil
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator

from scaling.errors import UserError
from scaling.record import Record, content_hash
from trainer.models import kernels

__all__ = ["AUTOCAST", "Numerics", "Parallel", "Precision", "cxx_compiler_available", "processor_name"]

Precision = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["none", "ddp", "fsdp"]

AUTOCAST: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What matrix products are computed in."""


def _this_processor() -> str:
    return processor_name()


def _this_torch() -> str:
    return str(torch.__version__)


class Numerics(Record):
    """``bf16`` and ``fp16`` are autocast over fp32 master weights, on CUDA and on CPU alike; fp16 scales the loss."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    compiled: bool = False
    kernels: bool = Field(default=False, description="trainer.models.kernels between the products, on a CPU")
    threads: int = Field(default=1, ge=1, description="intra-op threads of the process")
    micro_batch_sequences: int | None = Field(
        default=None, ge=1, description="sequences in one forward pass; None is the whole batch, and so is more than it"
    )
    recompute: bool = Field(default=False, description="activations of a layer are computed again in the backward pass")
    together: int = Field(default=1, ge=1, description="models of one shape in one step, their parameters stacked")
    parallel: Parallel = Field(default="none", description="how several processes share one run")
    ranks: int = Field(default=1, ge=1, description="processes that share one run")
    processor: str = Field(default_factory=_this_processor)
    torch: str = Field(default_factory=_this_torch)

    @model_validator(mode="after")
    def _kernels_fit(self) -> Numerics:
        others = {"device": "cpu", "threads": 1, "compiled": False, "together": 1}
        for name, needed in others.items() if self.kernels else ():
            if (found := getattr(self, name)) != needed:
                raise ValueError(f"kernels are on, and {name} is {found}: our kernels need {name} {needed}")
        return self

    @property
    def label(self) -> str:
        """For people: ``cpu bf16 compiled t1``."""
        way = "compiled" if self.compiled else "kernels" if self.kernels else "eager"
        words = [self.device, self.precision, way, f"t{self.threads}"]
        if self.micro_batch_sequences:
            words.append(f"m{self.micro_batch_sequences}")
        if self.recompute:
            words.append("recompute")
        if self.together > 1:
            words.append(f"x{self.together}")
        if self.ranks > 1:
            words.append(f"{self.parallel}{self.ranks}")
        return " ".join(words)

    def for_together(self, models: int) -> Numerics:
        """The same for ``models`` of one shape in one step, whose operations are stacked by PyTorch's own kernels."""
        return self.model_copy(update={"together": models, "kernels": False})

    @property
    def key(self) -> str:
        """64 hexadecimal digits; runs are equal to the bit only where these are equal."""
        return content_hash(self.model_dump(mode="json"))

    def check_available(self) -> None:
        """Raise :class:`UserError` if this machine can't compute this way."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device cuda is not available here: use device cpu, or install a CUDA build of torch")
        if self.compiled and not cxx_compiler_available():
            raise UserError("compiled runs need a C++ compiler and there is none: install g++, or run eager")
        if self.kernels and not kernels.available():
            raise UserError("runs on our own kernels need a C++ compiler and there is none: install g++, or run eager")


@cache
def cxx_compiler_available() -> bool:
    """True if torch.compile will find a C++ compiler; without one everything runs eager."""
    candidates = (os.environ.get("CXX"), "g++", "c++", "clang++")
    return any(shutil.which(candidate) for candidate in candidates if candidate)


@cache
def processor_name(device: Literal["cpu", "cuda"] = "cpu") -> str:
    """The processor's model name and, for a CPU, the vector instructions that decide its speed."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    name = platform.processor() or platform.machine()
    instructions = torch.backends.cpu.get_cpu_capability()
    facts = _cpuinfo()
    # Hypervisors give many processors one name ("AMD EPYC"); family, model and stepping tell them apart.
    numbers = [facts[key] for key in ("cpu family", "model", "stepping") if key in facts]
    if "model name" in facts:
        name = " ".join([facts["model name"], "/".join(numbers)]).strip()
    half = [flag.upper() for flag in ("avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
    return " ".join([name, instructions, *half])


def _cpuinfo() -> dict[str, str]:
    """The kernel's description of the first processor; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
