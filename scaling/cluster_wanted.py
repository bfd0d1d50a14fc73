"""The accelerators that a large run is meant for, as far as anybody said: which, how many, where, on what power."""

from __future__ import annotations

from scaling.cluster import ClusterEstimate
from scaling.cost.energy import DEFAULT_REGION, devices_within_power, rated_site_watts
from scaling.cost.run import MOST_DEVICES, devices_within
from scaling.errors import UserError
from scaling.hardware import accelerator, cluster_estimate
from scaling.quantity import format_power
from scaling.record import Record

__all__ = ["DEFAULT_ACCELERATOR", "LONGEST_DAYS", "ClusterWanted"]

DEFAULT_ACCELERATOR = "H100"
LONGEST_DAYS = 30
_SERVER = 8
"""A site's power is spent on whole servers: any number of single devices would divide no batch."""


class ClusterWanted(Record):
    """What is None is chosen or taken from tables (:meth:`estimate`)."""

    accelerator: str = DEFAULT_ACCELERATOR
    gpus: int | None = None
    mfu: float | None = None
    price: float | None = None
    """Dollars a GPU-hour."""
    region: str = DEFAULT_REGION
    power_cap_kw: float | None = None
    """What the site can give, by rated power of the servers times PUE."""

    @property
    def most(self) -> int:
        """As many devices as the power feeds: whole servers of eight, or fewer than eight of them.

        Raises :class:`UserError` where it feeds none.
        """
        if self.power_cap_kw is None:
            return MOST_DEVICES
        device = accelerator(self.accelerator)
        fed = devices_within_power(self.power_cap_kw, device.server_watts)
        if not fed:
            each = rated_site_watts(device.server_watts) / 1e3
            raise UserError(
                f"power_cap_kw is {self.power_cap_kw:g}: one {device.name} with its part of server and site takes "
                f"{each:.3g} kW; give more"
            )
        return fed if fed < _SERVER else fed - fed % _SERVER

    @property
    def held(self) -> str | None:
        """What the power makes of the number that was asked for; None where that is within it."""
        most = self.most
        if self.gpus is None or self.gpus <= most:
            return None
        name = accelerator(self.accelerator).name
        return (
            f"A site of {format_power(self.power_cap_kw or 0)} feeds {most:,} x {name}, so the {self.gpus:,} asked "
            f"for are held to {most:,}."
        )

    def by_power(self) -> ClusterWanted:
        """As many as the power feeds, where no number was asked for or a larger one."""
        if self.power_cap_kw is None:
            return self
        gpus = self.most if self.gpus is None else min(self.most, self.gpus)
        return self.model_copy(update={"gpus": gpus})

    def estimate(self, flops: float, width: int | None = None) -> ClusterEstimate:
        """What ``flops`` take there. Without a number on as many (a power of two) as finish within ``LONGEST_DAYS``, or
        as the power feeds. ``width`` of the model moves the MFU where none was given.
        """
        gpus, chosen = self.gpus, ""
        if gpus is None:
            gpus = devices_within(LONGEST_DAYS, flops, self.accelerator, self.mfu, width=width)
            chosen = f"a power of two that finishes within {LONGEST_DAYS} days, {MOST_DEVICES:,} at most"
            if gpus > self.most:
                gpus = 2 ** (self.most.bit_length() - 1)
                chosen = f"the power of two that {format_power(self.power_cap_kw or 0)} feed"
        else:
            gpus = min(gpus, self.most)
        made = cluster_estimate(flops, gpus, self.accelerator, self.mfu, self.price, width=width, region=self.region)
        return made.model_copy(update={"source": f"{made.source}; number of GPUs: {chosen}"}) if chosen else made
