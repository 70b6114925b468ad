"""`netlab.path.explain`: what the losses of each hop mean, and on what numbers that rests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from netlab.path import bucket, course, replyids
from netlab.path.bucket import Flags, Limit, Reals
from netlab.path.course import Change
from netlab.path.extent import RUN, in_order, within_path
from netlab.path.significance import fisher_greater, wilson
from netlab.schemas import VERDICTS

ALPHA = 0.001  # how often a hop may seem to differ from others where it does not
_AGREES = 0.01  # the same, for each later hop that must have the loss too
_REFUTATION = 4.0  # log of how much likelier a lossy link must be than a rate limit at each hop
_SEEKING_RUNS = 3  # that a monitor may need to find the end
_SILENT_SPAN_S = 2.0  # one burst may have met an empty bucket; a Linux router has a token again by then

_COLUMNS = [*course.COLUMNS, "attempt", "reply_id"]


class Verdict(StrEnum):
    """What a hop's losses mean."""

    OK = "ok"  # it answered every probe
    EARLIER_LOSS = "earlier-loss"  # it loses no more than a hop before it, whose verdict counts
    RATE_LIMITED = "rate-limited"  # it answers as a token bucket lets it; packets through it are not lost
    PATH_LOSS = "path-loss"  # from here on packets are lost; there or on the way back is not known
    FORWARD_LOSS = "forward-loss"  # from here on packets are lost on the way there
    RETURN_LOSS = "return-loss"  # its answers are sent, and lost on their way back
    SILENT = "silent-by-policy"  # it never answers, later hops do
    PATH_CHANGED = "path-changed"  # another hop took its place; nothing is wrong with the one there now
    UNREACHED = "unreached"  # neither it nor any later hop answers
    NOT_ENOUGH_DATA = "not-enough-data"


@dataclass(slots=True)
class Hop:
    """The probes of one TTL, in order: when each was sent, and whether it was answered."""

    ttl: int
    address: str | None
    addresses: int
    at_s: Reals
    answered: Flags
    reply_ids: Reals
    changed: bool = False
    overshot: bool = False
    limit: Limit | None = None

    @property
    def probes(self) -> int:
        """How many were sent."""
        return len(self.answered)

    @property
    def answers(self) -> int:
        """How many were answered."""
        return int(self.answered.sum())

    @property
    def lost(self) -> int:
        """How many were not."""
        return self.probes - self.answers

    @property
    def loss(self) -> float:
        """The share that was not."""
        return self.lost / self.probes

    @property
    def span_s(self) -> float:
        """From the first probe to the last."""
        return float(self.at_s[-1] - self.at_s[0])

    def between(self, first_s: float, last_s: float) -> Hop:
        """Return the part of it from one time to another."""
        inside = (self.at_s >= first_s) & (self.at_s <= last_s)
        return dataclasses.replace(
            self, at_s=self.at_s[inside], answered=self.answered[inside], reply_ids=self.reply_ids[inside]
        )


def explain(hops: pd.DataFrame) -> pd.DataFrame:
    """Say for each hop what its losses mean, with the numbers behind it.

    A lost answer has many causes, and most are no loss of traffic. Per target, by TTL:

    1. A hop without a loss is `ok`. One that never answers while later ones do is `silent-by-policy`, if four
       probes or more over at least 2 s say so. Where nothing answers any more the hops are `unreached`.
    2. `rate-limited`: a token bucket, fitted to the hop's own probes, foretells which of them were answered
       far better than chance, or bursts of loss, would (`netlab.path.bucket`). A second trace right after
       the first finds a bucket empty, and is no loss.
    3. What is lost on the way to a hop is missing at every later hop too. If any later hop lost
       significantly less at the same time (Fisher's exact test), the loss is not forward: it is the hop's own
       limit, or on the way back from it. Without a bucket that fits, only the identification of its answers
       can tell which: `return-loss`, or else `not-enough-data`.
    4. `path-loss`: loss begins here (significantly more than at the hops before), no later hop contradicts
       it, every later hop that is not rate-limited has it too, and buckets at all of them, whatever their
       rates, make what was seen far less likely than a lossy link does. From one end, loss on the way there
       and on the same way back look alike, unless the answers are numbered: where none was sent it is
       `forward-loss`, where one is missing `return-loss`. Later hops with no more loss have `earlier-loss`.
    5. `path-changed`: the hop at this TTL is another than before, and what is known since then is no loss.
       Its numbers are those since the change.
    6. Whatever these tests do not decide is `not-enough-data`.

    Parameters
    ----------
    hops
        What `netlab.traceroute` or a monitor returned, or several of those concatenated. Some
        hundred probes to each hop, a second apart, decide most cases; three decide hardly any.

    Returns
    -------
    DataFrame
        One row per target and TTL, as in `netlab.schemas.VERDICTS`: `verdict`, `why` in words, the counts,
        the loss and its 95 % interval, the lowest loss at a later hop, the longest run of losses, the time
        between answers, and the bucket that fits.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace.

    Notes
    -----
    Numbered answers: many routers take the IPv4 identification of all they send from one counter, so that
    answers that were made and lost leave a gap (Mahajan et al., "User-level Internet path diagnosis", SOSP
    2003). Linux does not count like that, and IPv6 has no such field: then the direction stays unknown.

    Examples
    --------
    >>> import netlab
    >>> verdicts = netlab.path.explain(netlab.traceroute("127.0.0.1"))
    >>> verdicts[["ttl", "verdict", "probes", "loss"]].values.tolist()
    [[1, 'ok', 3, 0.0]]
    """
    every = in_order(hops, _COLUMNS, "explain()")
    found = course.courses(every)
    probes = within_path(every)
    rows = []
    for target, part in probes.groupby("target", sort=True, observed=True):
        of_target = [flow for flow in found if flow.target == target]
        hops_of_target = _hops(part, of_target)
        hops_of_target[-1].overshot = _overshot(every[every["target"] == target], part)
        judged = _judged(hops_of_target, reached=bool(part["reached"].any()))
        rows += [(target, *row) for row in judged]
    columns: Any = list(zip(*rows, strict=True)) or [()] * len(VERDICTS.names)
    frame = VERDICTS.frame(dict(zip(VERDICTS.names, map(list, columns), strict=True)))
    frame.attrs["coverage"] = hops.attrs.get("coverage", [])
    return frame


def _hops(probes: pd.DataFrame, flows: list[course.Course]) -> list[Hop]:
    """Return what is known of each TTL, since the path last changed there."""
    since = _changed_at(flows)
    start = probes["sent_at"].min()
    found = []
    for ttl, part in probes.groupby("ttl", sort=True):
        changed = since.get(int(str(ttl)))
        kept = part if changed is None else part[part["sent_at"] >= changed]
        addresses = kept["address"].value_counts()
        found.append(
            Hop(
                ttl=int(str(ttl)),
                address=str(addresses.index[0]) if len(addresses) else None,
                addresses=len(addresses),
                at_s=(kept["sent_at"] - start).dt.total_seconds().to_numpy(np.float64),
                answered=kept["address"].notna().to_numpy(bool),
                reply_ids=kept["reply_id"].to_numpy(np.float64, na_value=np.nan),
                changed=changed is not None,
            )
        )
    return [hop for hop in found if hop.probes]


def _overshot(every: pd.DataFrame, counted: pd.DataFrame) -> bool:
    """Whether more probes met the end than its TTL tells: of a prober that does not know yet where it is."""
    last, last_counted = (probes.groupby(RUN)["ttl"].max() for probes in (every, counted))
    return bool((every["attempt"] > 0).any()) or int((last > last_counted).sum()) > _SEEKING_RUNS


def _changed_at(flows: list[course.Course]) -> dict[int, Any]:
    """Return by TTL when a flow last got another hop there, unless a load balancer moved it."""
    latest: dict[int, Any] = {}
    for flow in flows:
        for change in course.changes(flow, flows):
            if change.kind is not Change.REMAP:
                for ttl in change.ttls_with_new_ends:
                    latest[ttl] = max(latest.get(ttl, change.at), change.at)
    return latest


def _judged(hops: list[Hop], *, reached: bool) -> list[tuple[Any, ...]]:
    """Return a row for each hop, the verdicts found from the first to the last."""
    for place, hop in enumerate(hops):
        hop.limit = bucket.fit(hop.at_s, hop.answered, background=_background(hops, place))
    bench = _Bench(hops)
    rows = []
    for place, hop in enumerate(hops):
        verdict, why = bench.judge(place)
        if hop.changed and verdict in {Verdict.OK, Verdict.NOT_ENOUGH_DATA, Verdict.EARLIER_LOSS}:
            verdict, why = (
                Verdict.PATH_CHANGED,
                "another hop took this place; the numbers are those since then",
            )
        rows.append(_row(hop, verdict, why, bench.lowest_later(place), hops[-1] if reached else None))
    return rows


def _background(hops: list[Hop], place: int) -> float:
    """Return the loss that cannot be this hop's own: the lowest at a later one, or at the one before."""
    later = [hop.loss for hop in hops[place + 1 :] if hop.answers]
    return min(later) if later else hops[place - 1].loss if place and hops[place - 1].answers else 0.0


class _Bench:
    """Judges the hops in order; remembers the loss that has been found on the way so far."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self._hops = hops
        self._lost = self._probes = (
            0  # of the hops since the last loss began that only had what is lost there
        )
        self._began: Hop | None = None

    def judge(self, place: int) -> tuple[Verdict, str]:
        """Return the verdict of the next hop, and why."""
        hop = self._hops[place]
        if not hop.answers:
            return self._of_silence(place)
        if not hop.lost:
            self._probes += hop.probes
            return Verdict.OK, f"all {hop.probes} probes were answered"
        if hop.limit is not None:
            return Verdict.RATE_LIMITED, _bucket_in_words(hop)
        contradicting = self._contradicting(place)
        if contradicting is not None:
            return self._of_own_loss(hop, contradicting)
        if not self._is_worse_than_before(hop):
            return self._of_no_more_loss(hop)
        return self._of_loss_from_here_on(place)

    def lowest_later(self, place: int) -> Hop | None:
        """Return the later hop with the least loss in the time of this one."""
        later = self._later(place)
        return min(later, key=lambda hop: hop.loss) if later else None

    def _later(self, place: int) -> list[Hop]:
        """Return later hops that answer, as they did in the time of this one."""
        hop = self._hops[place]
        slack_s = hop.span_s / max(1, hop.probes - 1)  # they are probed in turn
        first_s, last_s = float(hop.at_s[0]) - slack_s, float(hop.at_s[-1]) + slack_s
        parts = [later.between(first_s, last_s) for later in self._hops[place + 1 :]]
        return [part for part in parts if part.answers]

    def _of_silence(self, place: int) -> tuple[Verdict, str]:
        hop = self._hops[place]
        if not any(later.answers for later in self._hops[place + 1 :]):
            why = "nothing answers from here on: a filter, a dead end or no way back look alike"
            return Verdict.UNREACHED, why
        if wilson(0, hop.probes)[1] < 0.5 and hop.span_s >= _SILENT_SPAN_S:
            return Verdict.SILENT, f"none of {hop.probes} probes in {hop.span_s:.3g} s, but later hops answer"
        why = f"only {hop.probes} probes in {hop.span_s:.3g} s: a rate limit that was used up looks alike"
        return Verdict.NOT_ENOUGH_DATA, why

    def _contradicting(self, place: int) -> Hop | None:
        """Return a later hop that lost significantly less than this one, or None."""
        hop = self._hops[place]
        later = [
            (fisher_greater(hop.lost, hop.probes, other.lost, other.probes), other)
            for other in self._later(place)
        ]
        best = min(later, key=lambda pair: pair[0], default=(1.0, None))
        return best[1] if best[0] < ALPHA / max(1, len(later)) else None

    def _of_own_loss(self, hop: Hop, contradicting: Hop) -> tuple[Verdict, str]:
        less = f"TTL {contradicting.ttl} lost only {_counted(contradicting)}"
        sent = _answers_sent(hop)
        if sent is True:
            return (
                Verdict.RETURN_LOSS,
                f"{less}, and the answers' numbers have a gap for each missing one",
            )
        why = f"{less}: not lost on the way here, but no token bucket fits, and nothing tells of the way back"
        return Verdict.NOT_ENOUGH_DATA, why

    def _is_worse_than_before(self, hop: Hop) -> bool:
        """Whether the loss is significantly more than before; of a first hop, than none."""
        probes = self._probes or hop.probes
        return fisher_greater(hop.lost, hop.probes, self._lost, probes) < ALPHA

    def _of_no_more_loss(self, hop: Hop) -> tuple[Verdict, str]:
        if self._began is None:
            why = f"{_counted(hop)} lost: too few to tell from none, or from what the hops before lose"
            return Verdict.NOT_ENOUGH_DATA, why
        self._lost, self._probes = self._lost + hop.lost, self._probes + hop.probes
        why = f"{_counted(hop)} lost, no more than at TTL {self._began.ttl}, where the loss begins"
        return Verdict.EARLIER_LOSS, why

    def _of_loss_from_here_on(self, place: int) -> tuple[Verdict, str]:
        hop, later = self._hops[place], self._later(place)
        doubt = self._doubt(hop, later)
        if doubt:
            return Verdict.NOT_ENOUGH_DATA, doubt
        self._lost, self._probes, self._began = hop.lost, hop.probes, hop
        least = min((other.loss for other in later if other.limit is None), default=hop.loss)
        what = f"{_counted(hop)} lost, and at least {least:.0%} at every later hop"
        sent = next((s for s in map(_answers_sent, self._hops[place:]) if s is not None), None)
        if sent is None:
            return Verdict.PATH_LOSS, f"{what}; on the way there or back"
        if sent:
            return Verdict.RETURN_LOSS, f"{what}; the answers' numbers have a gap for each missing one"
        return Verdict.FORWARD_LOSS, f"{what}; the answers' numbers have no gaps: none was sent"

    def _doubt(self, hop: Hop, later: list[Hop]) -> str:
        """Return why a loss from *hop* on may be something else, or nothing."""
        if not later and hop.overshot:
            return "the target also got probes past the end, which no row tells of, and may limit its answers"
        telling = [other for other in later if other.limit is None]
        if later and not telling:
            return "every later hop is rate-limited and cannot confirm the loss"
        if not _refutes_limits([hop, *telling]):
            return f"{_counted(hop)} lost: rate limits cannot be ruled out"
        without = next((other for other in telling if not self._has_it_too(other)), None)
        return f"TTL {without.ttl} does not confirm it: {_counted(without)} lost there" if without else ""

    def _has_it_too(self, other: Hop) -> bool:
        probes = self._probes or other.probes
        return fisher_greater(other.lost, other.probes, self._lost, probes) < _AGREES


def _answers_sent(hop: Hop) -> bool | None:
    """Whether the answers that did not come had been sent, if their numbers tell."""
    return replyids.were_sent(hop.at_s, hop.reply_ids)


def _refutes_limits(hops: list[Hop]) -> bool:
    """Whether the first hop, and all together, lose as no rate limits of their own could have it."""
    doubts = [bucket.doubt(hop.at_s, hop.answered) for hop in hops]
    return doubts[0] > 0 and sum(doubts) >= _REFUTATION


def _counted(hop: Hop) -> str:
    return f"{hop.lost} of {hop.probes}"


def _bucket_in_words(hop: Hop) -> str:
    limit = hop.limit
    assert limit is not None  # noqa: S101 - for the type checker: the caller has looked
    return (
        f"{_counted(hop)} lost, as a limit of {limit.per_s:.3g} answers a second and {limit.burst} at once "
        f"would have it, but for {limit.misfit:.1%} of them"
    )


def _row(hop: Hop, verdict: Verdict, why: str, later: Hop | None, end: Hop | None) -> tuple[Any, ...]:
    low, high = wilson(hop.lost, hop.probes)
    spacing = np.diff(hop.at_s[hop.answered])
    limit = hop.limit
    return (
        *(
            hop.ttl,
            hop.address,
            verdict.value,
            why,
            hop.probes,
            hop.answers,
            hop.loss,
            float(low),
            float(high),
        ),
        *((later.ttl, later.loss) if later else (None, None)),
        end.loss if end else None,
        bucket.longest(~hop.answered),
        float(np.median(spacing)) if len(spacing) else None,
        *((limit.per_s, limit.burst, limit.misfit, limit.evidence) if limit else (None,) * 4),
        hop.span_s,
    )
