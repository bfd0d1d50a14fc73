"""The recommendation as the file that ``scaling train`` reads, and back."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from scaling.errors import UserError
from scaling.recommendation import Recommendation

__all__ = ["read_recommendation", "recommendation_yaml"]


def recommendation_yaml(recommendation: Recommendation) -> str:
    """YAML headed by what it is; beyond three orders of extrapolation it says that it is an illustration."""
    lines = ["# Written by `scaling recommend`. `run` is the specification that `scaling train` reads."]
    if recommendation.illustration:
        orders = f"{recommendation.extrapolation_orders:.1f}"
        lines.insert(0, f"# ILLUSTRATION, NOT ADVICE: {orders} orders of magnitude beyond the fitted runs.")
    body = yaml.safe_dump(recommendation.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "\n".join([*lines, body])


def read_recommendation(path: Path) -> Recommendation | None:
    """The recommendation in ``path``; None if the file holds something else, as a run that a person wrote.

    Raises :class:`UserError` if it can't be read, or holds a recommendation with fields that none has.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or "fit_key" not in data:
        return None
    try:
        return Recommendation.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: {field}: {first['msg']}; write the file again (`scaling recommend STUDY --out FILE.yaml`)"
        ) from None
