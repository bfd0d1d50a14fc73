"""The recommendation as the file that ``scaling train`` reads."""

from __future__ import annotations

import yaml

from scaling.recommendation import Recommendation

__all__ = ["recommendation_yaml"]


def recommendation_yaml(recommendation: Recommendation) -> str:
    """YAML headed by what it is; beyond three orders of extrapolation it says that it is an illustration."""
    lines = ["# Written by `scaling recommend`. `run` is the specification that `scaling train` reads."]
    if recommendation.illustration:
        orders = f"{recommendation.extrapolation_orders:.1f}"
        lines.insert(0, f"# ILLUSTRATION, NOT ADVICE: {orders} orders of magnitude beyond the fitted runs.")
    body = yaml.safe_dump(recommendation.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "\n".join([*lines, body])
