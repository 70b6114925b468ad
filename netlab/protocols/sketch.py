"""Quantiles of what can be added up: DDSketch (Masson, Rim and Lee, VLDB 2019) as columns of counts.

A value counts in the bucket whose bounds are powers of gamma around it; any value of that bucket is within
1 % of its middle. Counts of the same bucket add up, whoever counted them. Latencies from a nanosecond to a
year need less than 2,100 buckets, so none are thrown together at the low end as the paper does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ACCURACY = 0.01  # of a quantile, relative to it
ZERO = -(1 << 31)  # the bucket of what is not above the smallest value

_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_SMALLEST = 1e-6  # ms: a nanosecond, in which captures count

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def buckets(values: Floats) -> Integers:
    """Return in which bucket each value counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.ceil(np.log(values) / np.log(_GAMMA))
    return np.where(values >= _SMALLEST / 2, places, ZERO).astype(np.int64)


def middles(places: Integers) -> Floats:
    """Return the value that each bucket stands for; no other is nearer to all of it, relatively."""
    exponents = np.where(places == ZERO, 0, places).astype(np.float64)
    return np.where(places == ZERO, 0.0, 2 * _GAMMA**exponents / (_GAMMA + 1))


def quantile(share: float, groups: Integers, places: Integers, counts: Integers, number: int) -> Any:
    """Return the lower *share*-quantile of each of *number* groups, masked where a group has no value.

    The arrays have one item per group and bucket, in the order of both.
    """
    found: Any = np.ma.array(np.zeros(number), mask=True)
    if not len(groups):
        return found
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    sizes = np.diff(np.r_[starts, len(groups)])
    through = np.cumsum(counts)
    before = np.repeat(through[starts] - counts[starts], sizes)
    totals = np.repeat(np.add.reduceat(counts, starts), sizes)
    short = through - before <= np.floor(share * (totals - 1))  # buckets below the one with that rank
    holding = starts + np.add.reduceat(short, starts)
    found[groups[starts]] = middles(places[holding])
    return found
