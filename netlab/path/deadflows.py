"""Flows that nothing answers from some hop on, while others are answered there: a balancer's way is dead.

Flows take turns, so one of them that is lost makes a pattern that a token bucket foretells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from netlab.path.evidence import Hop
from netlab.path.significance import fisher_greater

_ALPHA = 0.001
_UNEVEN = 2.0  # times the usual time from one probe to the next


def find(hops: Sequence[Hop], place: int) -> list[int]:
    """Return the flows that are lost from the hop at *place* on, as its other flows are not."""
    hop = hops[place]
    flows = np.unique(hop.flows)
    dead = [flow for flow in flows if not any(h.answered[h.flows == flow].any() for h in hops[place:])]
    others = hop.answered[~np.isin(hop.flows, dead)]
    lost = int((~others).sum())
    counts = {int(flow): int((hop.flows == flow).sum()) for flow in dead}
    return [
        flow
        for flow, probes in counts.items()
        if len(others) and fisher_greater(probes, probes, lost, len(others)) < _ALPHA / len(flows)
    ]


def gone_before(hops: Sequence[Hop], place: int) -> Hop | None:
    """Return the hop from which on all flows of the hop at *place* are lost; None if not all of them are.

    The others have found the target before there, and only these go on looking for it.
    """
    flows = set(hops[place].flows.tolist())
    return next((hop for hop in hops[:place] if flows <= set(hop.dead)), None)


def may_be_limits(hops: Sequence[Hop], place: int) -> bool:
    """Whether limits can have met just these flows in turn, again and again.

    At an even pace they would need to have the rate of the other flows, to a few percent, at several hops.
    In bursts the flows that come last find any bucket empty.
    """
    hop = hops[place]
    steps = np.diff(hop.at_s)
    even = float(np.quantile(steps, 0.9)) <= _UNEVEN * float(np.median(steps))
    confirmed = any(set(hop.dead) <= set(later.dead) for later in hops[place + 1 :])
    return not (even and confirmed)


def in_words(hop: Hop) -> str:
    """Return which flows of the hop are lost, and how the others fare."""
    ours = np.isin(hop.flows, hop.dead)
    names = ", ".join(map(str, hop.dead))
    others = hop.answered[~ours]
    which = f"flow {names} is" if len(hop.dead) == 1 else f"flows {names} are"
    rest = f"of the others {(~others).sum()} of {len(others)}"
    return f"{which} lost from here on, all {ours.sum()} probes; {rest}"
