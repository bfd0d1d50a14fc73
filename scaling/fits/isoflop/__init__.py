"""Approach 2 of Hoffmann et al. (2203.15556): the best size on each iso-FLOP line, then N* and D* against compute."""

from __future__ import annotations

from scaling.fits.isoflop.fit import INTERPOLATORS, InterpolatorName, fit_isoflop

__all__ = ["INTERPOLATORS", "InterpolatorName", "fit_isoflop"]
