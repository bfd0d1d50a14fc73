"""The laws by name. An outside package adds one through the entry point group ``scaling.laws``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from scaling.errors import UserError
from scaling.laws.law import Law, LossLaw

__all__ = ["get", "get_loss_law", "names"]

_HOMES = {
    "accuracy-sigmoid": "scaling.laws.accuracy_sigmoid:ACCURACY_SIGMOID",
    "broken-power": "scaling.laws.broken_power:BROKEN_POWER",
    "broken-power-2": "scaling.laws.broken_power:BROKEN_POWER_2",
    "broken-power-3": "scaling.laws.broken_power:BROKEN_POWER_3",
    "chinchilla": "scaling.laws.chinchilla:CHINCHILLA",
    "data-constrained": "scaling.laws.data_constrained:DATA_CONSTRAINED",
    "deepseek": "scaling.laws.deepseek:DEEPSEEK",
    "deepseek-batch": "scaling.laws.deepseek:DEEPSEEK_BATCH",
    "fine-tuning": "scaling.laws.fine_tuning:FINE_TUNING",
    "kaplan": "scaling.laws.kaplan:KAPLAN",
    "m4": "scaling.laws.m4:M4",
    "multi-power": "scaling.laws.multi_power:MULTI_POWER",
    "olmo-ladder": "scaling.laws.olmo_ladder:OLMO_LADDER",
    "olmo-ladder-batch": "scaling.laws.olmo_ladder:OLMO_LADDER_BATCH",
    "over-optimisation-best-of-n": "scaling.laws.over_optimisation:OVER_OPTIMISATION_BEST_OF_N",
    "over-optimisation-rl": "scaling.laws.over_optimisation:OVER_OPTIMISATION_RL",
    "over-trained": "scaling.laws.over_trained:OVER_TRAINED",
    "power-lines-batch": "scaling.laws.power_lines:POWER_LINES_BATCH",
    "power-lines-timescale": "scaling.laws.power_lines:POWER_LINES_TIMESCALE",
    "saturating-power": "scaling.laws.saturating_power:SATURATING_POWER",
    "skaling": "scaling.laws.skaling:SKALING",
    "step-law": "scaling.laws.step_law:STEP_LAW",
    "step-law-batch": "scaling.laws.step_law:STEP_LAW_BATCH",
    "tissue": "scaling.laws.tissue:TISSUE",
    "top-1-error": "scaling.laws.top_1_error:TOP_1_ERROR",
}


def names() -> tuple[str, ...]:
    """Every law that can be asked for, outside packages' too."""
    return tuple(sorted({*_HOMES, *(point.name for point in entry_points(group="scaling.laws"))}))


def get(name: str) -> Law:
    """The law called ``name``; :class:`UserError` if there is none, or an outside package's can't be loaded."""
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        law: Law = getattr(import_module(module), attribute)
        return law
    outside = {point.name: point for point in entry_points(group="scaling.laws")}
    if name in outside:
        return _loaded(outside[name])
    raise UserError(f"law {name!r} is not known; choose one of: {', '.join(names())}")


def _loaded(point: EntryPoint) -> Law:
    try:
        law = point.load()
    except Exception as error:  # whatever a package that is not ours does when it is imported
        raise UserError(f"law {point.name!r} of a package can't be loaded: {error}") from error
    if not isinstance(law, Law):
        raise UserError(f"law {point.name!r} of a package is no law: it is {law!r}, not an instance of scaling's Law")
    return law


def get_loss_law(name: str) -> LossLaw:
    """The law called ``name`` if it is a :class:`LossLaw`; :class:`UserError` otherwise."""
    law = get(name)
    if not isinstance(law, LossLaw):
        others = ", ".join(other for other in names() if _is_loss_law(other))
        raise UserError(
            f"law {name!r}, of {', '.join(law.inputs)}, has no compute optimum, which a fit of a table of runs is for; "
            f"choose one of: {others} (scaling.fit_law fits any law to any columns)"
        )
    return law


def _is_loss_law(name: str) -> bool:
    try:
        return isinstance(get(name), LossLaw)
    except UserError:  # another package's, broken: no reason to refuse this one
        return False
