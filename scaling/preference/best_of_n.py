"""Best-of-n: what the best of n answers scores, from more answers than n, and how far it lies from the policy.

Shapes: p prompts, m answers sampled for each, n of which the best is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import gammaln

from scaling.errors import UserError
from scaling.laws.law import FloatArray

__all__ = ["best_of_n_curve", "expected_best", "kl_best_of_n", "kl_of_tied_rewards"]


def expected_best(proxy: ArrayLike, gold: ArrayLike, n: int) -> FloatArray:
    """The gold score of the answer that ``proxy`` likes best among n, (p,): the mean over all subsets of n of the m.

    ``proxy`` and ``gold`` are (p, m); with ``gold`` the proxy itself, what the proxy promises. Each prompt's mean is an
    unbiased estimate of the best of n fresh answers, of far less variance than one draw (the estimator of Nakano et al.
    2112.09332, appendix I). Answers that the proxy scores alike are equally likely to be taken. Raises
    :class:`UserError` for an n outside 1 to m, shapes that differ, or scores that are not finite.
    """
    proxy_pm, gold_pm = _scores(proxy, "proxy"), _scores(gold, "gold")
    if proxy_pm.shape != gold_pm.shape:
        raise UserError(f"gold has shape {gold_pm.shape} and proxy {proxy_pm.shape}: give one score each an answer")
    chance_pm = _chance_of_best(proxy_pm, n)
    return np.asarray((chance_pm * gold_pm).sum(axis=1))


def kl_best_of_n(n: ArrayLike) -> FloatArray:
    """KL(best-of-n ‖ policy) = ln n − (n − 1)/n in nats, of the shape of n (Stiennon et al. 2009.01325).

    It is exact where no two answers can tie, and otherwise an upper bound (Beirami et al. 2401.01879): where the
    policy has few distinct answers, or the reward few values, :func:`kl_of_tied_rewards` is nearer.
    """
    n = np.asarray(n, dtype=np.float64)
    if not (np.isfinite(n) & (n >= 1)).all():
        raise UserError(f"n is {n}: best-of-n takes the best of 1 answer or more")
    return np.asarray(np.log(n) - (n - 1) / n)


def kl_of_tied_rewards(proxy: ArrayLike, n: int) -> FloatArray:
    """KL(best-of-n ‖ policy) in nats for each prompt, (p,), where the reward takes few values: ties broken by chance.

    With F the share of answers whose reward is at most r and f(r) the share at r, the best of n has reward r with
    probability q(r) = F(r)^n − F(r−)^n; answers of one reward keep their proportions, so KL = Σ_r q ln(q/f). F is taken
    from the m answers in ``proxy`` (p, m), so every one seen counts as if it were all there is: without ties it needs m
    far above n, and is too low otherwise. Never above :func:`kl_best_of_n`.
    """
    proxy_pm = _scores(proxy, "proxy")
    _check_n(n, None)
    return np.array([_kl_of_row(row, n) for row in proxy_pm])


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike, ns: Iterable[int]) -> pd.DataFrame:
    """One row an n: ``n``, ``kl_nats`` (the bound), ``gold`` and ``proxy`` of the best of n, averaged over prompts, and
    ``gold_sem``, the standard error over prompts. Scores are (p, m)."""
    rows = []
    for n in ns:
        gold_p = expected_best(proxy, gold, n)
        spread = float(gold_p.std(ddof=1)) / math.sqrt(len(gold_p)) if len(gold_p) > 1 else math.nan
        rows.append(
            {
                "n": n,
                "kl_nats": float(kl_best_of_n(n)),
                "gold": float(gold_p.mean()),
                "proxy": float(expected_best(proxy, proxy, n).mean()),
                "gold_sem": spread,
            }
        )
    return pd.DataFrame(rows)


def _scores(scores: ArrayLike, name: str) -> FloatArray:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise UserError(f"{name} has shape {array.shape}: scores are (prompts, answers), one row a prompt")
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise UserError(f"{name} of prompt {row + 1}, answer {column + 1} is {array[row, column]}: give a finite score")
    return array


def _check_n(n: int, answers: int | None) -> None:
    if n != int(n) or n < 1 or (answers is not None and n > answers):
        most = "" if answers is None else f" to the {answers} answers that each prompt has"
        raise UserError(f"n is {n}: it is a whole number from 1{most}")


def _chance_of_best(proxy_pm: FloatArray, n: int) -> FloatArray:
    """How likely each answer is the best of a random subset of n, (p, m): C(i − 1, n − 1)/C(m, n) for the i-th lowest,
    shared equally among answers that tie."""
    prompts, answers = proxy_pm.shape
    _check_n(n, answers)
    rank = np.arange(n, answers + 1)
    log_chance = gammaln(rank) - gammaln(rank - n + 1) - gammaln(n)
    log_chance -= gammaln(answers + 1) - gammaln(answers - n + 1) - gammaln(n + 1)
    by_rank = np.zeros(answers)
    by_rank[n - 1 :] = np.exp(log_chance)
    by_rank /= by_rank.sum()
    order_pm = np.argsort(proxy_pm, axis=1, kind="stable")
    sorted_pm = np.take_along_axis(proxy_pm, order_pm, axis=1)
    # Ties are runs of equal neighbours, numbered through all prompts.
    starts_pm = np.ones((prompts, answers), dtype=bool)
    starts_pm[:, 1:] = sorted_pm[:, 1:] != sorted_pm[:, :-1]
    group_N = np.cumsum(starts_pm.ravel()) - 1
    shared_N = np.bincount(group_N, np.tile(by_rank, prompts)) / np.bincount(group_N)
    chance_pm = np.empty_like(proxy_pm)
    np.put_along_axis(chance_pm, order_pm, shared_N[group_N].reshape(prompts, answers), axis=1)
    return chance_pm


def _kl_of_row(proxy_m: FloatArray, n: int) -> float:
    _, count = np.unique(proxy_m, return_counts=True)
    share = count / count.sum()
    # From the number of answers at or below, whole numbers, so that the last is exactly one.
    at_most = np.cumsum(count) / count.sum()
    chosen = at_most**n - np.concatenate(([0.0], at_most[:-1])) ** n
    seen = chosen > 0
    return float((chosen[seen] * np.log(chosen[seen] / share[seen])).sum())
