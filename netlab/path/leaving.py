"""Which way packets leave while routes and addresses of this host may change."""

from __future__ import annotations

import itertools
import time
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from netlab.errors import NetlabError, ProbeError
from netlab.frames import Gap, Missing
from netlab.kernel import rtnetlink
from netlab.kernel.lookups import Question
from netlab.kernel.netns import NetNs
from netlab.path.origin import Origin, looked_up
from netlab.path.state import Run
from netlab.path.target import Target

_TO: TypeAlias = tuple[Target, bytes]

_LONG_S = 1.0  # after what took longer it is worth looking again


class Leaving:
    """The ways that the rounds of a monitor have left by; the first is *origin*."""

    def __init__(self, origin: Origin, target: Target, source: bytes, netns: NetNs) -> None:
        self._begun = [0]  # the round that each of the ways began with
        self._ways = [origin]
        self._to = target, source
        self._netns = netns
        self._is_own = not _looked([self._to], netns)[1]

    def look(self, number: int) -> None:
        """Look which way the probes of a round will leave.

        Raises
        ------
        ProbeError
            If the address that they would come from is no longer this host's: raw sockets go on sending from
            it, and what comes back gets to nobody, which would look like loss.
        """
        try:
            (now,), foreign = _looked([self._to], self._netns)
        except NetlabError:  # the name of the namespace is gone; the sockets in it are not
            return
        if foreign and self._is_own:
            raise ProbeError(
                f"this host no longer has the address {now.source_address} that the probes come from",
                fix="Start a new monitor",
            )
        if _way(now) != _way(self._ways[-1]):
            self._begun.append(number)
            self._ways.append(replace(now, trace=self._ways[0].trace))

    def parts(self, runs: Iterable[Run]) -> list[tuple[Origin, list[Run]]]:
        """Return *runs*, which are in order, by the way that they left by."""
        by_way = itertools.groupby(runs, key=lambda run: bisect(self._begun, run.number) - 1)
        return [(self._ways[place], list(part)) for place, part in by_way]


def changes(before: Sequence[Origin], targets: Sequence[_TO], netns: NetNs, begin_s: float) -> list[Missing]:
    """Return what traces do not tell because this host's routes or addresses have changed since *before*.

    Those that began, by the monotonic clock, no more than a second ago are taken to be as they were.
    """
    if time.monotonic() - begin_s < _LONG_S:
        return []
    try:
        now, foreign = _looked(targets, netns)
    except NetlabError:
        return []
    gone = sorted(foreign)
    moved = sum(_way(old) != _way(new) for old, new in zip(before, now, strict=True))
    detail = f"this host no longer has {', '.join(gone)}: what came back to it since then was not heard"
    found = [
        Missing("gateway, interface", Gap.APPROXIMATE, moved, "the way out has changed since the beginning"),
        Missing("answers", Gap.UNSEEN, None, detail),
    ]
    return [gap for gap, holds in zip(found, (moved, gone), strict=True) if holds]


def _way(origin: Origin) -> tuple[str | None, str | None, int | None]:
    return origin.gateway, origin.interface, origin.nexthops


def _looked(targets: Sequence[_TO], netns: NetNs) -> tuple[list[Origin], set[str]]:
    """Return the ways to *targets* now, and the sources that are no addresses of this host."""
    sources = {source: Question(to.family, source, interface=to.scope) for to, source in targets}
    ways, told = looked_up(targets, netns, [*sources.values()])
    return ways, {
        rtnetlink.text(source) for source, answer in zip(sources, told, strict=True) if answer.type != "local"
    }
