"""`netlab.path.explain`: what the losses of each hop mean, and on what numbers that rests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from netlab import checks
from netlab.frames import known_gaps
from netlab.path import bucket, deadflows, evidence, holes, looping, segments
from netlab.path.evidence import Hop
from netlab.path.extent import in_order, of_one_source
from netlab.path.holes import Hole
from netlab.path.judging import Bench, Verdict
from netlab.path.rejections import is_rejected, within_path_marked
from netlab.path.significance import wilson
from netlab.schemas import VERDICTS

_GOES_ON = {Verdict.LOOP, Verdict.UNREACHED}  # one finding, of all hops from one on
_LOSSES = {Verdict.FORWARD_LOSS, Verdict.RETURN_LOSS, Verdict.PATH_LOSS}


@checks.options
def explain(hops: pd.DataFrame, *, mtu: pd.DataFrame | None = None) -> pd.DataFrame:
    """Say for each hop what its losses mean, with the numbers behind it.

    A lost answer has many causes, and most are no loss of traffic. Per target, by TTL:

    1. A hop without a loss is `ok`. One that never answers while later ones do is `silent-by-policy`, if four
       probes or more over at least 2 s say so. Where nothing answers any more the hops are `unreached`.
    2. `rate-limited`: a token bucket, fitted to the hop's own probes, foretells which of them were answered
       far better than chance, or bursts of loss, would (`netlab.path.bucket`). A second trace right after
       the first finds a bucket empty, and is no loss.
       Flows that take turns make a pattern, too, if one of them is dead: one that nothing answers from a hop
       on, while others are answered there, is `path-loss`.
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
       Its numbers are those since the change, and so are those of later hops.
    6. `mtu-hole`, if *mtu* is given: large packets vanish behind the hop and small ones pass, which no
       probe of one size shows. A verdict of lost packets stays, and `why` and `mtu_bytes` have the hole.
    7. `rejected`: an answer said that packets go no further (unreachable, prohibited), before the target.
       `why` has who said it. At the end such probes are lost: they count in its `loss` and in `end_loss`.
       A verdict of lost packets stays, and its `why` has that, too.
    8. `loop`: the target never answers, and from the hop on to the last TTL the same routers do in turn.
       The first row of a loop, or of `unreached`, says why; those it goes on in say at which TTL that is.
    9. Whatever these tests do not decide is `not-enough-data`.

    Parameters
    ----------
    hops
        What `netlab.traceroute` or a monitor returned, or several of those concatenated. Some
        hundred probes to each hop, a second apart, decide most cases; three decide hardly any.
    mtu
        What `netlab.path.path_mtu` returned for the same targets, or several of those concatenated; of each
        target the latest counts.

    Returns
    -------
    DataFrame
        One row per target and TTL, as in `netlab.schemas.VERDICTS`: `verdict`, `why` in words, the counts,
        the loss and its 95 % interval, the lowest loss at a later hop, the longest run of losses, the time
        between answers, the bucket that fits, and the size that passes a hole.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace, or is of several hosts or namespaces; if *mtu* lacks those of path
        MTUs, or is about other targets.

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
    every = in_order(hops, evidence.COLUMNS, "explain()")
    of_one_source(hops, "explain()")
    # Who rejects a packet stands in for the hop that it did not get to, and does not take its place.
    found = segments.courses(every.assign(address=every["address"].mask(is_rejected(every))))
    probes = within_path_marked(every)
    holes_to = holes.holes(mtu, set(every["target"]))
    rows, missing = [], []
    for target, part in probes.groupby("target", sort=True, observed=True):
        of_target = [flow for flow in found if flow.target == target]
        judged = evidence.hops_of(part, of_target)
        judged[-1].overshot = evidence.overshot(every[every["target"] == target], part)
        known = holes_to.get(str(target), [])
        rows += [(target, *row) for row in _judged(judged, known, reached=bool(part["reached"].any()))]
        missing += holes.unplaced(str(target), known, judged)
    columns: Any = list(zip(*rows, strict=True)) or [()] * len(VERDICTS.names)
    frame = VERDICTS.frame(dict(zip(VERDICTS.names, map(list, columns), strict=True)), missing)
    frame.attrs["coverage"] = [*known_gaps(hops), *frame.attrs["coverage"]]
    return frame


def _judged(hops: list[Hop], known: list[Hole], *, reached: bool) -> list[tuple[Any, ...]]:
    """Return a row for each hop, the verdicts found from the first to the last."""
    for place, hop in enumerate(hops):
        hop.dead = deadflows.find(hops, place)
        if not hop.dead:
            hop.limit = bucket.fit(hop.at_s, hop.answered, background=_background(hops, place))
    bench = Bench(hops)
    loop = None if reached else looping.find(hops)
    rows, told = [], _Told()
    for place, hop in enumerate(hops):
        verdict, why = bench.judge(place)
        if hop.changed and verdict in {Verdict.OK, Verdict.NOT_ENOUGH_DATA, Verdict.EARLIER_LOSS}:
            verdict, why = (
                Verdict.PATH_CHANGED,
                "another hop took this place; the numbers are those since then",
            )
        if hop.behind_change:
            why = f"{why}; since the path last changed before it"
        if hop.rejected:
            seen = f"{hop.rejected} of {hop.probes} {hop.rejection}"
            verdict, why = (verdict, f"{why}; {seen}") if verdict in _LOSSES else (Verdict.REJECTED, seen)
        hole = holes.behind(hop, known)
        if hole is not None:
            # Before the end large probes are answered by small errors, at the end by echoes as large.
            seen = hole.in_words(may_be_back=hole.echoed and place == len(hops) - 2)
            kept = _LOSSES | {Verdict.REJECTED}
            verdict, why = (verdict, f"{why}; {seen}") if verdict in kept else (Verdict.MTU_HOLE, seen)
        if loop is not None and hop.ttl >= loop.first_ttl:
            verdict, why = Verdict.LOOP, loop.in_words()
        end = next((hop for hop in reversed(hops) if hop.answers), None) if reached else None
        mtu_bytes = hole.mtu_bytes if hole else None
        said = told.words(hop.ttl, verdict, why)
        rows.append((*_row(hop, verdict, said, bench.lowest_later(place), end), mtu_bytes))
    return rows


@dataclass(slots=True)
class _Told:
    """The finding that the rows so far end with, so that the rows it goes on in do not say it anew."""

    ttl: int = 0
    verdict: Verdict | None = None
    why: str = ""

    def words(self, ttl: int, verdict: Verdict, why: str) -> str:
        """Return why, or at which TTL that is said already of what goes on from there."""
        if verdict in _GOES_ON and (verdict, why) == (self.verdict, self.why):
            return f"as at TTL {self.ttl}"
        self.ttl, self.verdict, self.why = ttl, verdict, why
        return why


def _background(hops: list[Hop], place: int) -> float:
    """Return the loss that cannot be this hop's own: the lowest at a later one, or at the one before."""
    later = [hop.loss for hop in hops[place + 1 :] if hop.answers]
    return min(later) if later else hops[place - 1].loss if place and hops[place - 1].answers else 0.0


def _not_arrived(hop: Hop) -> int:
    return hop.lost + hop.turned_back


def _row(hop: Hop, verdict: Verdict, why: str, later: Hop | None, end: Hop | None) -> tuple[Any, ...]:
    low, high = wilson(_not_arrived(hop), hop.probes)
    spacing = np.diff(hop.at_s[hop.answered])
    limit = hop.limit
    return (
        *(
            hop.ttl,
            hop.address,
            verdict.value,
            why,
            hop.probes,
            hop.probes - _not_arrived(hop),
            _not_arrived(hop) / hop.probes,
            float(low),
            float(high),
        ),
        *((later.ttl, later.loss) if later else (None, None)),
        _not_arrived(end) / end.probes if end else None,
        bucket.longest(~hop.answered),
        float(np.median(spacing)) if len(spacing) else None,
        *((limit.per_s, limit.burst, limit.misfit, limit.evidence) if limit else (None,) * 4),
        hop.span_s,
    )
