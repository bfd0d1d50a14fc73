"""Training compute: the 6ND estimate and model FLOPs utilisation."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling.errors import UserError

__all__ = ["flops_6nd", "mfu"]


@overload
def flops_6nd(params: float, tokens: float) -> float: ...


@overload
def flops_6nd(params: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]: ...


def flops_6nd(params: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64] | float:
    """FLOPs of training ``params`` on ``tokens``: 6·N·D (Kaplan et al. 2001.08361, section 2.1), elementwise.

    Counts become floats before they are multiplied: 6·70e9·15e12 does not fit a 64-bit integer.
    """
    flops = 6.0 * np.asarray(params, dtype=np.float64) * np.asarray(tokens, dtype=np.float64)
    return flops if np.ndim(flops) else float(flops)


def mfu(training_flops: float, seconds: float, devices: int, peak_flops_per_second: float) -> float:
    """Model FLOPs utilisation (PaLM, 2204.02311 appendix B): the model's own FLOPs over what the devices could do.

    ``training_flops`` in FLOPs over the whole run, without recomputed activations; ``peak_flops_per_second`` of one
    device. Raises ``UserError`` unless every quantity is positive.
    """
    given = {
        "training_flops": training_flops,
        "seconds": seconds,
        "devices": devices,
        "peak_flops_per_second": peak_flops_per_second,
    }
    for name, value in given.items():
        if not value > 0:
            raise UserError(f"{name} is {value}: a utilisation needs it above zero")
    return training_flops / (seconds * devices * peak_flops_per_second)
