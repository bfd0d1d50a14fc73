"""The whole answer of ``scaling allocate``: the compute optimum, and each alternative that was asked for."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from pydantic import Field

from scaling.allocation.compute_optimum import Allocation, allocate, flat_region
from scaling.allocation.disagreement import Disagreement, compare
from scaling.allocation.inference_aware import InferenceOptimum, inference_optimum
from scaling.allocation.iso_loss import IsoLossCurve, iso_loss
from scaling.allocation.limited_data import LimitedOptimum, limited_data_optimum, repetition_constants
from scaling.allocation.over_trained import Shrunk, shrink
from scaling.allocation.surface import LossSurface
from scaling.allocation.sweep_worth import SweepWorth, sweep_worth
from scaling.fit import Fit
from scaling.observation import ParamsConvention
from scaling.quantity import format_count, format_flops, format_interval
from scaling.record import Record

__all__ = ["AllocationAnswer", "answer"]


class AllocationAnswer(Record):
    """Where ``flops`` should go; what was not asked for, or is refused, is None."""

    schema_version: int = 1
    fit_key: str
    flops: float
    level: float
    params_convention: ParamsConvention
    optimum: Allocation
    flat_region: tuple[float, float] | None
    serving: InferenceOptimum | None = None
    limited: tuple[LimitedOptimum, ...] = Field(
        default=(), description="under the published repetition constants, then under those of the lower minimum"
    )
    shrunk: Shrunk | None = None
    iso_loss: IsoLossCurve | None = None
    sweep: SweepWorth | None = None
    beside: Disagreement | None = None
    refusal: str | None = Field(default=None, description="why the alternatives that need a law were not worked out")
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """A page of text: the optimum first, then one paragraph an alternative."""
        best = self.optimum
        method = "the parametric law" if best.estimator == "parametric" else "the iso-FLOP lines"
        loss = "" if best.loss is None else f", loss {format_interval(best.loss, 4)}"
        said = (
            f"{format_flops(self.flops)}: {format_interval(best.params)} parameters on {format_interval(best.tokens)} "
            f"tokens ({format_interval(best.tokens_per_param)} tokens a parameter){loss} ({self.level:.0%} intervals; "
            f"by {method}; C = 6 N D, N {self.params_convention})."
        )
        parts = [textwrap.fill(said, 100, subsequent_indent="  ")]
        if self.flat_region is not None:
            low, high = (format_count(size) for size in self.flat_region)
            parts.append(f"Any size from {low} to {high} costs less than 0.3% of loss.")
        alternatives = (self.serving, *self.limited, self.shrunk, self.iso_loss, self.sweep, self.beside)
        parts += [alternative.summary() for alternative in alternatives if alternative is not None]
        told = [self.refusal, *self.warnings, *(one.caveat for one in self.limited[:1])]
        parts += [textwrap.fill(f"! {warning}", 100, subsequent_indent="  ") for warning in told if warning]
        return "\n".join(parts)


def answer(
    fit: Fit,
    flops: float,
    *,
    serve_tokens: float | None = None,
    unique_tokens: float | None = None,
    shrink_by: float | None = None,
    curve: bool = False,
    sweep_flops: float | None = None,
    beside: Mapping[str, Fit] | None = None,
    accelerator: str = "H100",
    gpus: int = 1024,
    price: float | None = None,
) -> AllocationAnswer:
    """The compute optimum at ``flops`` and the alternatives whose arguments are given, all with C = 6·N·D.

    ``serve_tokens``: a model as good, cheapest over training and so many tokens served. ``unique_tokens``: no more
    distinct text than that. ``shrink_by``: a model so many times smaller. ``curve``: every size of the same loss.
    ``sweep_flops``: what the sweep took, to say what more of it is worth. ``beside``: other fits, and the published
    laws, with their disagreement in dollars (an empty mapping for the published laws alone).

    Where the fit has no law that can be used away from its runs, ``refusal`` says so and the alternatives are None.
    Raises :class:`UserError` where the fit supports no optimum at all, or an argument can't be.
    """
    refusal = LossSurface.refusal(fit)
    asked = any(value is not None for value in (serve_tokens, unique_tokens, shrink_by, sweep_flops)) or curve
    made = AllocationAnswer(
        fit_key=fit.key,
        flops=flops,
        level=fit.level,
        params_convention=fit.params_convention,
        optimum=allocate(fit, flops),
        flat_region=flat_region(fit, flops),
        beside=None
        if beside is None
        else compare({"this fit": fit, **beside}, flops, accelerator=accelerator, gpus=gpus, price=price),
        refusal=refusal if asked else None,
    )
    if refusal is not None:
        return made.model_copy(update={"warnings": _warnings(fit, made)})
    surface = LossSurface.of(fit)
    found: dict[str, Record | tuple[Record, ...]] = {}
    if serve_tokens is not None:
        found["serving"] = inference_optimum(surface, serve_tokens=serve_tokens, flops=flops)
    if unique_tokens is not None:
        first = limited_data_optimum(surface, flops, unique_tokens)
        other = limited_data_optimum(surface, flops, unique_tokens, repetition_constants("datablations-minimum"))
        found["limited"] = (first,) if first.caveat is None else (first, other)
    if shrink_by is not None:
        found["shrunk"] = shrink(surface, flops, shrink_by)
    if curve:
        found["iso_loss"] = iso_loss(surface, flops=flops)
    if sweep_flops is not None:
        found["sweep"] = sweep_worth(surface, flops, sweep_flops)
    made = made.model_copy(update=found)
    return made.model_copy(update={"warnings": _warnings(fit, made)})


def _warnings(fit: Fit, made: AllocationAnswer) -> tuple[str, ...]:
    """How far the answer lies from the fitted runs: in compute, and in tokens a parameter."""
    said = []
    orders = math.log10(made.flops / fit.fitted_range.flops[1])
    if orders > 0:
        said.append(f"{orders:.1f} orders of magnitude beyond the largest fitted run")
    ratios = {"the optimum": made.optimum.tokens_per_param.estimate}
    if made.serving is not None:
        ratios["the served model"] = made.serving.tokens.estimate / made.serving.params.estimate
    if made.shrunk is not None:
        ratios["the smaller model"] = made.shrunk.tokens.estimate / made.shrunk.params.estimate
    low, high = fit.fitted_range.tokens_per_param
    outside = [f"{name} ({ratio:.3g})" for name, ratio in ratios.items() if not low <= ratio <= high]
    if outside:
        said.append(
            f"tokens a parameter of {', '.join(outside)} lie outside the fitted runs' {low:.3g} to {high:.3g}; a law "
            "fitted at usual ratios overestimates what more tokens bring at extreme ones (2401.00448)"
        )
    return tuple(said)
