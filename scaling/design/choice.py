"""Choosing runs one by one, and then exchanging them, by what each tells about the target.

The covariance Σ of what a fit would know is kept for every scenario, and with it each candidate's own variance and its
covariance with the answers. A run of variance v, covariance c with an answer and noise s² lowers that answer's
variance by c² / (v + s²), so that every candidate is scored at once; what a chosen run changes is one rank (Sherman
& Morrison), and taking it away again is the same with the sign turned.

Branches share a part of their noise through their trunk: an unknown of its own for each trunk.

Shapes: K scenarios, C runs; 2C candidates: each run alone, then each as a branch of its size's trunk; T trunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from scaling.design.linear_study import LinearStudy
from scaling.laws.law import FloatArray, IntArray

__all__ = ["Candidates", "Choice"]

_ROUNDING = 1 + 1e-12
_WORTH_A_TRY = 1e-8


@dataclass(frozen=True)
class Candidates:
    """What each of C runs costs by itself, what its cooldown costs, and the trunk (0 … T−1) that it could branch from;
    ``usable_2C`` says which candidates may be chosen."""

    cost_C: FloatArray
    cooldown_cost_C: FloatArray
    trunk_C: IntArray
    usable_2C: np.ndarray
    trunk_share: float


@dataclass
class Choice:
    """The runs chosen so far and what they tell."""

    study: LinearStudy
    candidates: Candidates
    weight_Q: FloatArray
    chosen: list[int] = field(default_factory=list)
    given: int = 0
    """How many of the first of ``chosen`` are there already: they cost nothing and stay."""

    def __post_init__(self) -> None:
        study, candidates = self.study, self.candidates
        trunks = int(candidates.trunk_C.max()) + 1
        scenarios, self._runs, self._own = study.gradient_KCM.shape
        self._sd_KC = np.sqrt(study.noise_KC)
        share = candidates.trunk_share
        variance_KM = np.concatenate((study.prior_KM, np.full((scenarios, trunks), share)), axis=1)
        self._sigma_KMM = np.zeros((scenarios, *(variance_KM.shape[1],) * 2))
        diagonal = np.arange(variance_KM.shape[1])
        self._sigma_KMM[:, diagonal, diagonal] = variance_KM
        self._noise_K2C = np.concatenate((study.noise_KC, (1 - share) * study.noise_KC), axis=1)
        alone_KC = np.einsum("kcm,km->kc", study.gradient_KCM**2, study.prior_KM)
        self._variance_K2C = np.concatenate((alone_KC, alone_KC + share * study.noise_KC), axis=1)
        towards_KQM = study.target_KQM * study.prior_KM[:, None]
        cov_KQC = np.einsum("kqm,kcm->kqc", towards_KQM, study.gradient_KCM, optimize=True)
        self._covariance_KQ2C = np.concatenate((cov_KQC, cov_KQC), axis=2)
        self._target_KQ = study.beyond_KQ + (towards_KQM * study.target_KQM).sum(axis=2)
        already, self.chosen = self.chosen, []
        for candidate in already:
            self.add(candidate)
        self.given = len(already)

    def criterion(self) -> float:
        """Weighted mean over scenarios and answers of the log of its variance: what a design makes small."""
        return float(self.study.weight_K @ (np.log(self._target_KQ) @ self.weight_Q))

    def gains(self) -> FloatArray:
        """By how much each candidate would lower the criterion, (2C,)."""
        lowered_KQ2C = self._covariance_KQ2C**2 / (self._variance_K2C + self._noise_K2C)[:, None]
        ratio_KQ2C = np.maximum(1 - lowered_KQ2C / self._target_KQ[..., None], 1e-12)
        weight_KQ = self.study.weight_K[:, None] * self.weight_Q
        gain_2C = -np.einsum("kqc,kq->c", np.log(ratio_KQ2C), weight_KQ, optimize=True)
        # The first run of a trunk costs and tells what it would alone; that others may branch from it is worth a try.
        gain_2C[self._runs :] += _WORTH_A_TRY
        return np.asarray(gain_2C)

    def add(self, candidate: int) -> None:
        self._update(candidate, 1.0)
        self.chosen.append(candidate)

    def remove(self, place: int) -> int:
        """Take the run at ``place`` of ``chosen`` away again."""
        candidate = self.chosen.pop(place)
        self._update(candidate, -1.0)
        return candidate

    def _update(self, candidate: int, sign: float) -> None:
        run, branch = candidate % self._runs, candidate >= self._runs
        gradient_KM = self.study.gradient_KCM[:, run]
        trunk_C = self._own + self.candidates.trunk_C
        towards_KM = np.einsum("kij,kj->ki", self._sigma_KMM[:, :, : self._own], gradient_KM)
        if branch:
            towards_KM = towards_KM + self._sigma_KMM[:, :, trunk_C[run]] * self._sd_KC[:, [run]]
        alone_KC = np.matmul(self.study.gradient_KCM, towards_KM[:, : self._own, None])[..., 0]
        cross_K2C = np.concatenate((alone_KC, alone_KC + self._sd_KC * towards_KM[:, trunk_C]), axis=1)
        scale_K = sign / (self._noise_K2C[:, candidate] + sign * self._variance_K2C[:, candidate])
        to_target_KQ = self._covariance_KQ2C[:, :, candidate].copy()
        self._sigma_KMM -= scale_K[:, None, None] * towards_KM[:, :, None] * towards_KM[:, None, :]
        self._variance_K2C -= scale_K[:, None] * cross_K2C**2
        self._covariance_KQ2C -= scale_K[:, None, None] * to_target_KQ[..., None] * cross_K2C[:, None]
        self._target_KQ = self._target_KQ - scale_K[:, None] * to_target_KQ**2

    def added_costs(self) -> FloatArray:
        """What each candidate would add, (2C,): infinite where it may not be chosen or is a branch that is there."""
        table, runs = self.candidates, self._runs
        trunks = int(table.trunk_C.max()) + 1
        longest_T, its_cooldown_T = np.zeros(trunks), np.zeros(trunks)
        cost_2C = np.concatenate((table.cost_C, table.cost_C))
        taken: list[int] = []
        for candidate in self.chosen:
            if candidate < runs:
                continue
            taken.append(candidate)
            run = candidate - runs
            trunk = table.trunk_C[run]
            if table.cost_C[run] > longest_T[trunk]:
                longest_T[trunk], its_cooldown_T[trunk] = table.cost_C[run], table.cooldown_cost_C[run]
        longest_C, cooldown_C = longest_T[table.trunk_C], its_cooldown_T[table.trunk_C]
        cost_2C[runs:] = np.where(
            table.cost_C <= longest_C, table.cooldown_cost_C, table.cost_C - longest_C + cooldown_C
        )
        cost_2C[taken] = math.inf
        return np.where(table.usable_2C, cost_2C, math.inf)

    def cost(self) -> float:
        """What the chosen runs cost, those given apart."""
        return self._cost_of(self.chosen) - self._cost_of(self.chosen[: self.given])

    def _cost_of(self, chosen: list[int]) -> float:
        table, total = self.candidates, 0.0
        trunks: dict[int, list[int]] = {}
        for candidate in chosen:
            run = candidate % self._runs
            if candidate < self._runs:
                total += float(table.cost_C[run])
            else:
                trunks.setdefault(int(table.trunk_C[run]), []).append(run)
        for members in trunks.values():
            longest = max(members, key=lambda run: float(table.cost_C[run]))
            total += float(table.cost_C[longest])
            total += sum(float(table.cooldown_cost_C[run]) for run in members if run != longest)
        return total

    def fill(self, budget: float, most_runs: int, thrift: float) -> None:
        """Add the run of the highest gain for its cost to the power ``thrift``, until none fits."""
        while len(self.chosen) - self.given < most_runs:
            cost_2C = self.added_costs()
            fits = self.cost() + cost_2C <= budget * _ROUNDING
            if not fits.any():
                return
            with np.errstate(divide="ignore", invalid="ignore"):
                worth_2C = np.where(fits, self.gains() / np.maximum(cost_2C, 1e-300) ** thrift, -math.inf)
            self.add(int(np.argmax(worth_2C)))

    def exchange(self, budget: float, most_runs: int, thrift: float, passes: int) -> None:
        """Put each run in turn to where it tells most for what it may cost, and spend what that leaves, until none
        moves."""
        for _ in range(passes):
            before = self.criterion()
            for _ in range(len(self.chosen) - self.given):
                gone = self.remove(self.given)
                cost_2C = self.added_costs()
                gains_2C = np.where(self.cost() + cost_2C <= budget * _ROUNDING, self.gains(), -math.inf)
                best = int(np.argmax(gains_2C))
                self.add(best if gains_2C[best] > gains_2C[gone] + 1e-12 else gone)
            self.fill(budget, most_runs, thrift)
            if before - self.criterion() < 1e-3:
                return
