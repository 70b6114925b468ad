"""How sure a count or a difference is. Small exact formulas, for counts of any size."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

_FEW = 40  # values of both samples: so many ways to split them are counted in a millisecond
_Z95 = 1.959964  # 97.5 % quantile of the normal distribution


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike) -> tuple[Reals, Reals]:
    """Return the Wilson score interval of a share, of 95 %; NaN without trials.

    Unlike the plain one it stays within 0 and 1 and is not empty when nothing, or everything, was lost
    (Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927).
    """
    z, k, n = _Z95, np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = k / n
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return np.where(k == 0, np.where(n > 0, 0.0, np.nan), middle - half), np.where(
            k == n, np.where(n > 0, 1.0, np.nan), middle + half
        )


def fisher_greater(losses: int, probes: int, other_losses: int, other_probes: int) -> float:
    """Return how likely so many of all losses, or more, would be among *probes* if both lost alike.

    Fisher's exact test, one-sided: the upper tail of the hypergeometric distribution.
    """
    total, lost = probes + other_probes, losses + other_losses
    counts = np.arange(losses, min(probes, lost) + 1)
    if not len(counts):
        return 1.0
    logs = _log_choose(probes, counts) + _log_choose(other_probes, lost - counts)
    return float(min(1.0, np.exp(logs - _log_choose(total, np.array([lost]))).sum()))


def fisher(losses: int, probes: int, other_losses: int, other_probes: int) -> float:
    """Return the two-sided p-value of a difference in loss: twice the smaller tail, at most 1."""
    more = fisher_greater(losses, probes, other_losses, other_probes)
    fewer = fisher_greater(other_losses, other_probes, losses, probes)
    return min(1.0, 2 * min(more, fewer))


def mann_whitney(before: Reals, after: Reals) -> float:
    """Return the two-sided p-value that neither sample tends to be larger; NaN if one has no value.

    Of few values it is exact: the share of all ways to split them that are as uneven, ties included. Of many
    it is the normal approximation with corrections for ties and continuity (Mann and Whitney, 1947).
    """
    n, m = len(before), len(after)
    if not n or not m:
        return math.nan
    both = np.concatenate([before, after])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # ties share the mean of their ranks
    if n + m <= _FEW:
        return _as_uneven(np.rint(2 * ranks).astype(np.int64), n)
    u = ranks[:n].sum() - n * (n + 1) / 2
    total = n + m
    ties = (counts.astype(np.float64) ** 3 - counts).sum()
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


@functools.lru_cache(maxsize=1024)
def mann_whitney_least(n: int, m: int) -> float:
    """Return the smallest p-value that `mann_whitney` has for so many values: one sample above the other."""
    return mann_whitney(np.arange(n, dtype=np.float64), np.arange(n, n + m, dtype=np.float64))


def _as_uneven(ranks: npt.NDArray[np.int64], n: int) -> float:
    """Return the share of all choices of *n* ranks whose sum is as far from its mean as that of the first."""
    ways = np.zeros((n + 1, int(ranks.sum()) + 1))  # by how many are chosen, and their sum
    ways[0, 0] = 1
    for rank in map(int, ranks):
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    total = len(ranks)
    away = np.abs(total * np.arange(ways.shape[1]) - n * ranks.sum())  # whole numbers: equal is equal
    return float(ways[n, away >= away[ranks[:n].sum()]].sum() / ways[n].sum())


def _log_choose(n: int, k: npt.NDArray[np.integer[Any]]) -> Reals:
    """Return log(n over k), -inf where that is 0."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    inside = (k >= 0) & (k <= n)
    k = np.where(inside, k, 0)
    return np.where(inside, log_factorial[n] - log_factorial[k] - log_factorial[n - k], -np.inf)
