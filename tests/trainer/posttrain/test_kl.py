"""Estimators against the exact divergence, by summing over every token; the controller by its formula."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from trainer.posttrain.kl import AdaptiveCoefficient, exact_kl, k1, k2, k3


def test_k1_and_k3_are_unbiased_and_k2_is_near() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.randn(9, generator=generator).double()
    near_V = logits_V + 0.1 * torch.randn(9, generator=generator).double()
    p_V, log_ratios_V = torch.softmax(logits_V, 0), torch.log_softmax(logits_V, 0) - torch.log_softmax(near_V, 0)
    kl = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x) for x in (logits_V, near_V)))
    assert exact_kl(logits_V, near_V) == pytest.approx(float(kl))
    means = [float((p_V * estimate(log_ratios_V)).sum()) for estimate in (k1, k2, k3)]
    assert means[0] == pytest.approx(float(kl)) and means[2] == pytest.approx(float(kl))
    assert means[1] != pytest.approx(float(kl), rel=1e-4) and means[1] == pytest.approx(float(kl), rel=0.1)
    # And why one would want them: no negative ones, and less spread.
    assert k1(log_ratios_V).min() < 0 <= min(k2(log_ratios_V).min(), k3(log_ratios_V).min())
    spread = [float((p_V * (estimate(log_ratios_V) - kl).square()).sum()) for estimate in (k1, k2, k3)]
    assert spread[1] < spread[0] / 5 and spread[2] < spread[0] / 5


def test_the_controller_moves_the_coefficient_in_proportion_and_no_faster_than_its_clip() -> None:
    control = AdaptiveCoefficient(target_nats=4.0, horizon_answers=1000)
    assert control.next(0.5, 4.0, 100) == 0.5
    assert control.next(0.5, 4.4, 100) == pytest.approx(0.5 * (1 + 0.1 * 0.1))
    assert control.next(0.5, 400.0, 100) == pytest.approx(0.5 * (1 + 0.2 * 0.1))
    assert control.next(0.5, -3.0, 100) == pytest.approx(0.5 * (1 - 0.2 * 0.1))
    coefficient = 1.0
    for _ in range(500):
        coefficient = control.next(coefficient, 100.0, 10)
    assert coefficient == pytest.approx(math.e, rel=0.01), "five horizons"
    with pytest.raises(ValidationError, match="target_nats"):
        AdaptiveCoefficient(target_nats=0)
