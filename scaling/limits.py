"""What a model may not exceed once it is trained, as a largest size, and its training in power, energy and carbon; and
what is known of its use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field, model_validator

from scaling.record import Record

if TYPE_CHECKING:
    from scaling.hardware import Accelerator

__all__ = ["Cap", "Limits"]

BANDWIDTH_SHARE = 0.6
"""Of the memory's bandwidth that decoding one stream reaches: an assumption; half to three quarters is usual."""
SERVING_MFU = 0.2
"""Of the dense peak that batched serving reaches over prompts and completions: an assumption."""


class Cap(NamedTuple):
    """The largest N (total parameters) that a limit allows, and why."""

    params: float
    reason: str


class Limits(Record):
    """All optional. Serving is on one accelerator, weights of ``serve_bits`` each."""

    max_params: float | None = Field(default=None, gt=0, description="total parameters at most")
    serve_memory_gib: float | None = Field(default=None, gt=0, description="weights must fit in so much memory")
    max_ms_per_token: float | None = Field(default=None, gt=0, description="decoding one stream, milliseconds a token")
    max_usd_per_million: float | None = Field(default=None, gt=0, description="dollars a million tokens served")
    unique_tokens: float | None = Field(default=None, gt=0, description="distinct training tokens there are")
    serve_tokens: float | None = Field(default=None, gt=0, description="tokens that the model will process")
    power_cap_kw: float | None = Field(default=None, gt=0, description="kilowatts that the site can give")
    max_kwh: float | None = Field(default=None, gt=0, description="energy of the run at the site's meter")
    max_tco2e: float | None = Field(default=None, gt=0, description="tonnes of CO2e of the run")
    serve_bits: float = Field(default=16, gt=0, le=64, description="of a served weight")

    @model_validator(mode="after")
    def _finite(self) -> Limits:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}: give a finite number")
        return self

    def cap(self, device: Accelerator, usd_per_hour: float) -> Cap | None:
        """The tightest of the limits on size where one is given."""
        bytes_each = self.serve_bits / 8
        caps = []
        if self.max_params is not None:
            caps.append(Cap(self.max_params, "the largest size that was asked for"))
        if self.serve_memory_gib is not None:
            said = f"weights of {self.serve_bits:g} bits in {self.serve_memory_gib:g} GiB"
            caps.append(Cap(self.serve_memory_gib * 2**30 / bytes_each, said))
        if self.max_ms_per_token is not None:
            read = self.max_ms_per_token / 1e3 * device.bandwidth_tb_s * 1e12 * BANDWIDTH_SHARE
            said = (
                f"{self.max_ms_per_token:g} ms a token on one {device.name}, every weight read once a token at "
                f"{BANDWIDTH_SHARE:.0%} of its bandwidth"
            )
            caps.append(Cap(read / bytes_each, said))
        if self.max_usd_per_million is not None and usd_per_hour > 0:
            seconds = self.max_usd_per_million / usd_per_hour * 3600
            flops = seconds * device.bf16_flops * SERVING_MFU
            said = (
                f"${self.max_usd_per_million:g} a million tokens at ${usd_per_hour:g} an hour of {device.name}, 2 N "
                f"FLOPs a token at {SERVING_MFU:.0%} of its peak"
            )
            caps.append(Cap(flops / 2e6, said))
        return min(caps, key=lambda cap: cap.params, default=None)
