"""How many flows must pass a router until its next hops are all known, with a stated confidence.

A router that has shown k next hops to n flows may have one more that none of them was sent to. How likely
that is says the coupon collector's problem, if the router spreads flows evenly and each by itself. The
stopping points n_k are those of Veitch, Augustin, Teixeira and Friedman, "Failure control in multipath route
tracing" (INFOCOM 2009): a router with k next hops so far is left once n_k flows have passed it, and the n_k
are the lowest numbers for which a router of any width K is left too early, at whichever k < K, with at most
a given probability.

The confidence asked for is that of the whole graph, which one such probability does not give: every balancer
may fail. So what may fail in all is divided among the balancers found, those with two next hops apart from
the wider ones, because whatever looks like no balancer at all may be one more of two.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_Seen = npt.NDArray[np.float64]  # by number of next hops seen so far: how likely that is


class Points:
    """The stopping points n_1, n_2 and so on.

    Parameters
    ----------
    failure
        How likely a router with three next hops or more may be left too early.
    first
        n_1; the lowest that has a router with two left too early with that probability, unless given.
    """

    def __init__(self, failure: float, first: int | None = None) -> None:
        self.failure = failure
        self._points = [first or _first(failure)]

    def __call__(self, found: int) -> int:
        """Return n_k for *found* next hops, at least 1."""
        while len(self._points) < found:
            self._points.append(self._next(width=len(self._points) + 2))
        return self._points[found - 1]

    def _next(self, width: int) -> int:
        """Return the point that a router of *width* must not be left at, with one next hop unseen."""
        seen, failed = _start(width), 0.0
        for flows in itertools.count(1):
            for found, point in enumerate(self._points, 1):
                if point == flows:
                    failed += seen[found]
                    seen[found] = 0
            if flows > self._points[-1] and failed + seen[width - 1] <= self.failure:
                return flows
            seen = _one_more(seen)
        raise AssertionError


@lru_cache(maxsize=1024)
def points(confidence: float, twos: int, wider: int) -> Points:
    """Return the stopping points that keep the failure of the whole graph below 1 - *confidence*.

    *twos* is how many balancers with two next hops have been found, *wider* how many with more. The points
    hold for one next hop more than was found, wherever it is: at something that looks like no balancer (one
    more of two), or at any of those found. A third of what may fail is kept for the wider ones.
    """
    allowed = 1 - confidence
    for first in itertools.count(2):
        left = allowed - (twos + 1) * 2.0 ** (1 - first)
        failure = left / max(wider + (twos > 0), 1)
        # A router with three next hops may show only one until n_1: half of what may fail must be left then.
        if left >= allowed / 3 and 3.0 ** (1 - first) <= failure / 2:
            return Points(failure, first)
    raise AssertionError


@lru_cache(maxsize=4096)
def missed(found: int, flows: int) -> float:
    """Return how likely one next hop more than *found* would have stayed unseen by *flows* flows."""
    if flows <= found:
        return 1.0
    width = found + 1
    seen = _start(width)
    for _ in range(flows - 1):
        seen = _one_more(seen)
    return float(1 - seen[width])


def _first(failure: float) -> int:
    return next(flows for flows in itertools.count(2) if 2.0 ** (1 - flows) <= failure)


def _start(width: int) -> _Seen:
    """Return what one flow has seen of a router with *width* next hops."""
    seen = np.zeros(width + 1)
    seen[1] = 1
    return seen


def _one_more(seen: _Seen) -> _Seen:
    width = len(seen) - 1
    again = np.arange(width + 1) / width  # the chance that the next flow sees nothing new
    after = seen * again
    after[1:] += seen[:-1] * (1 - again[:-1])
    return after
