"""Does a hop answer as a rate limit would have it? Fits a token bucket to what was answered when.

A router that limits its ICMP errors gains tokens at a constant rate up to a burst, and spends one per answer
(Linux: 1 a second and 6 for each peer, net/ipv4/icmp.c and inet_peer_xrlim_allow() in net/ipv4/inetpeer.c).
Such a bucket foretells each answer from the times of the probes and the answers before. Losses of a link
cannot be foretold: at best their bursts can, by whether the last probe was lost. So a bucket is believed if
it foretells so much better that chance does not explain it, however many buckets were tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_BURSTS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50], np.float64)
_RATES = 120  # tried between the bounds: some 4 % from one to the next
_NEARBY = np.linspace(0.94, 1.06, 49)  # tried again around the likeliest, because errors add up over time
_KINDS = 6  # of each bucket
_LONGEST = 2000  # probes, the latest: the fit costs some 30 ms per 1000

# A bucket that is this close to one token may answer or not: the next rate tried is as far away, and probes
# arrive so many seconds earlier or later than they were sent apart.
_VAGUE_TOKENS = 0.03
_VAGUE_S = 0.01

_MISFIT = 0.05  # share of the foretold answers, and of the foretold silences, that may come out otherwise
_RECOVERIES = 3  # times that an answer after a loss was foretold: a link that broke has none
_EVIDENCE = 3.0  # log of the likelihood ratio that is left when the number of buckets tried is paid for
_KNOWN_EVIDENCE = 2.0  # for the one bucket that most routers and hosts with Linux have
_KNOWN_PER_S, _KNOWN_BURST = 1.0, 6.0

# To doubt all buckets: the rates tried, how far from one token each may answer or not, and how often a
# true one may be wrong even so.
_ALL_RATES = np.geomspace(0.05, 200, 80)  # 11 % from one to the next
_DOUBTFUL_TOKENS = 0.1
_ERROR = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A token bucket: `evidence` is the log of how much likelier it makes what was seen than random loss."""

    per_s: float
    burst: int
    evidence: float
    misfit: float


def fit(at_s: Reals, answered: Flags, *, background: float = 0.0) -> Limit | None:
    """Return the token bucket that explains which probes were answered, or None.

    Parameters
    ----------
    at_s
        When the probes were sent, in order.
    answered
        Which of them were answered.
    background
        The share of probes that is lost whatever the bucket says.
    """
    at_s, answered = at_s[-_LONGEST:], answered[-_LONGEST:]
    if answered.all() or not answered.any():
        return None
    known = _Buckets(np.array([_KNOWN_PER_S]), np.array([_KNOWN_BURST])).follow(at_s, answered)
    best = known.best(misfit=0.0, recoveries=0, evidence=_KNOWN_EVIDENCE)
    if best is not None:
        return best
    rates = _rates(at_s, answered)
    if not len(rates):
        return None
    roughly = _grid(rates).follow(at_s, answered).likeliest_rate()
    tried = _grid(roughly * _NEARBY).follow(at_s, answered)
    price = math.log(_KINDS * len(_BURSTS) * (len(rates) + len(_NEARBY)))
    return tried.best(misfit=_MISFIT + 1.5 * background, recoveries=_RECOVERIES, evidence=_EVIDENCE + price)


def doubt(at_s: Reals, answered: Flags) -> float:
    """Return the log of how much likelier loss makes what was answered than the best of all token buckets.

    That a bucket does not fit well is no proof that there is none: few probes fit many. Here every bucket is
    tried, and where one leaves open whether it answers, either outcome costs it no more than chance.

    The parameters are those of `fit`.
    """
    at_s, answered = at_s[-_LONGEST:], answered[-_LONGEST:]
    best = _grid(_ALL_RATES, vague_tokens=_DOUBTFUL_TOKENS).follow(at_s, answered).likelihood()
    chance = _burstiness(answered) - float(_surprise(len(answered) - answered.sum(), answered.sum()))
    return chance - best


def _grid(rates: Reals, vague_tokens: float = _VAGUE_TOKENS) -> _Buckets:
    per_s, burst = (grid.ravel() for grid in np.meshgrid(rates, _BURSTS))
    return _Buckets(per_s, burst, vague_tokens)


def _rates(at_s: Reals, answered: Flags) -> Reals:
    """Return the rates to try: a bucket was empty between two answers with a loss between them."""
    places = np.flatnonzero(answered)
    interrupted = np.diff(places) > 1
    gaps = np.diff(at_s[places])[interrupted]
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return np.array([])
    streak = longest(answered)
    low, high = 0.5 / np.quantile(gaps, 0.9), 2 * max(1, streak) / np.quantile(gaps, 0.1)
    return np.geomspace(low, high, _RATES)


def longest(flags: Flags) -> int:
    """Return the length of the longest stretch that is True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


class _Buckets:
    """Many buckets at once, each followed along the same probes.

    Each is there six times. It begins full, or with one token or none, as another trace may have left it. And
    it takes a loss against its word for an error of its own and empties itself, which keeps it in step where
    nothing but the limit loses; or it takes it for a loss elsewhere.
    """

    def __init__(self, per_s: Reals, burst: Reals, vague_tokens: float = _VAGUE_TOKENS) -> None:
        self._per_s, self._burst = np.tile(per_s, _KINDS), np.tile(burst, _KINDS)
        cells = len(self._per_s)
        kind = np.arange(cells) // len(per_s)
        self._at_first = np.choose(kind % 3, [self._burst, np.ones(cells), np.zeros(cells)])
        self._trusts_losses = kind < 3
        self._vague = vague_tokens + self._per_s * _VAGUE_S
        self._foretold = np.zeros((2, 2, cells))  # [foretold silence or answer][silence or answer]
        self._recoveries = np.zeros(cells)
        self._seen = np.zeros(2)  # silences and answers
        self._price = 0.0

    def follow(self, at_s: Reals, answered: Flags) -> _Buckets:
        """Let each bucket foretell each probe from what went before."""
        tokens = self._at_first.copy()
        enough, short = 1 + self._vague, 1 - self._vague
        # All is done in place, and counted in integers: it is the time that `netlab.path.explain` takes.
        gained, full, empty = np.empty_like(tokens), np.empty(len(tokens), bool), np.empty(len(tokens), bool)
        foretold, recoveries = np.zeros(self._foretold.shape, np.int32), np.zeros(len(tokens), np.int32)
        last = True
        for wait_s, came in zip(np.diff(at_s, prepend=at_s[:1]).tolist(), answered.tolist(), strict=True):
            tokens += np.multiply(self._per_s, wait_s, out=gained)
            np.greater(tokens, enough, out=full)
            np.less(tokens, short, out=empty)
            np.minimum(self._burst, tokens, out=tokens)
            foretold[1, int(came)] += full
            foretold[0, int(came)] += empty
            if came:
                if not last:
                    recoveries += full
                np.maximum(tokens, 1, out=tokens)
                tokens -= 1
            else:
                np.copyto(tokens, short, where=self._trusts_losses & full)
            last = came
        self._foretold, self._recoveries = foretold.astype(np.float64), recoveries.astype(np.float64)
        self._price = _burstiness(answered)
        self._seen = np.array([len(answered) - answered.sum(), answered.sum()], np.float64)
        return self

    def likelihood(self) -> float:
        """Return the log-likelihood of the best bucket; what it leaves open costs as much as chance."""
        silence, answer = self._foretold
        wrong, right = answer[0] + silence[1], answer[1] + silence[0]
        open_lost, open_came = self._seen[:, None] - silence - answer  # by outcome, whatever was foretold
        logs = wrong * math.log(_ERROR) + right * math.log(1 - _ERROR) - _surprise(open_lost, open_came)
        return float(logs.max())

    def _gain(self) -> Reals:
        silence, answer = self._foretold
        gain: Reals = _surprise(*(silence + answer)) - _surprise(*silence) - _surprise(*answer)
        return gain - self._price

    def likeliest_rate(self) -> float:
        """Return the rate of the likeliest bucket."""
        return float(self._per_s[int(np.argmax(self._gain()))])

    def best(self, *, misfit: float, recoveries: int, evidence: float) -> Limit | None:
        """Return the likeliest bucket that keeps to the limits given."""
        silence, answer = self._foretold
        gain = self._gain()
        fits = answer[0] <= misfit * answer.sum(axis=0)
        fits &= silence[1] <= min(misfit, _MISFIT) * silence.sum(axis=0)
        fits &= (self._recoveries >= recoveries) & (gain >= evidence)
        if not fits.any():
            return None
        place = int(np.argmax(np.where(fits, gain, -np.inf)))
        return Limit(
            per_s=float(self._per_s[place]),
            burst=int(self._burst[place]),
            evidence=float(gain[place]),
            misfit=float((answer[0] + silence[1])[place] / (answer + silence).sum(axis=0)[place]),
        )


def _surprise(lost: Any, came: Any) -> Any:
    """Return minus the log-likelihood of so many of each at their own share."""
    total = lost + came
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(n > 0, n * np.log(n / total), 0.0) for n in (lost, came)]
    return -(parts[0] + parts[1])


def _burstiness(answered: Flags) -> float:
    """Return how much likelier the outcomes become when losses come in bursts: 0 if they do not."""
    before, after = answered[:-1], answered[1:]
    counts = np.array(
        [[(after[before == a] == b).sum() for b in (False, True)] for a in (False, True)], float
    )
    shares = counts[:, 0] / np.maximum(counts.sum(axis=1), 1)
    if shares[0] <= shares[1]:
        return 0.0
    return float(_surprise(*counts.sum(axis=0)) - _surprise(*counts[0]) - _surprise(*counts[1]))
