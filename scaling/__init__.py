"""The science of scaling laws: laws, fits with intervals, forecasts, and where to put the next FLOP.

Usable alone, without torch or MLflow:

    from scaling import fit_table, predict
    fit = fit_table("runs.csv")
    print(fit.summary())
    print(predict(fit, flops=1e21).loss)

Names are loaded when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaling.errors import UserError as UserError
    from scaling.fit import Fit as Fit
    from scaling.fit import LawFit as LawFit
    from scaling.fits.curve import fit_law as fit_law
    from scaling.fits.together import fit_table as fit_table
    from scaling.forecast import Forecast as Forecast
    from scaling.forecast import Outcome as Outcome
    from scaling.prediction import predict as predict
    from scaling.prediction import score as score
    from scaling.run_spec import RunSpec as RunSpec
    from scaling.shape import ModelShape as ModelShape

_HOMES = {
    "Fit": "scaling.fit",
    "LawFit": "scaling.fit",
    "Forecast": "scaling.forecast",
    "ModelShape": "scaling.shape",
    "Outcome": "scaling.forecast",
    "RunSpec": "scaling.run_spec",
    "UserError": "scaling.errors",
    "fit_law": "scaling.fits.curve",
    "fit_table": "scaling.fits.together",
    "predict": "scaling.prediction",
    "score": "scaling.prediction",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'scaling' has no attribute {name!r}")
