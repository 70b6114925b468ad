"""The runs of a flow, and the segments of them that are on one path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.path.extent import FLOW, MOVED_RUNS, within_path
from netlab.path.rejections import without_passing

COLUMNS = ["target", "target_address", "flow", "run", "ttl", "address", "reply", "reached", "sent_at"]

# A TTL is taken for a per-packet load balancer's when its address differs from the one before in more than
# this share of the answers, and in more than a route that goes away and comes back twice would.
BALANCED_SHARE = 0.2
BALANCED_LEAST = 4

Codes: TypeAlias = npt.NDArray[np.int64]
Pattern: TypeAlias = dict[int, str]  # by TTL: who answers there, as far as known; at 0 the TTL of the end

_UNKNOWN = -1
_END = 0


@dataclass(slots=True)
class Segment:
    """Consecutive runs whose answers agree wherever two of them know a hop; `path` tells equal ones."""

    first: int
    last: int
    pattern: Pattern
    path: int = 0


@dataclass(slots=True)
class Course:
    """The runs of one flow: numbers, times of their first and last probes, and the segments they are in."""

    target: str
    flow: int
    runs: Codes
    first_at: npt.NDArray[Any]
    last_at: npt.NDArray[Any]
    end_ttl: Codes
    reached: npt.NDArray[np.bool_]
    segments: list[Segment]
    balanced: set[int]
    seen: dict[tuple[int, str], Any]  # (TTL, address) → when this flow met it first
    patterns: list[Pattern] = field(default_factory=list)


def courses(probes: pd.DataFrame) -> list[Course]:
    """Return the course of each flow; *probes* has `COLUMNS` and is in order."""
    probes = within_path(without_passing(probes))
    groups: Any = probes.groupby(FLOW, sort=True, observed=True)
    return [_course(str(target), int(flow), part) for (target, flow), part in groups]


def _course(target: str, flow: int, probes: pd.DataFrame) -> Course:
    places, runs = pd.factorize(probes["run"])  # in order of time
    ttls, ttl_names = pd.factorize(probes["ttl"], sort=True)
    codes, addresses = pd.factorize(probes["address"])
    met: Codes = np.full((len(runs), len(ttl_names)), _UNKNOWN, np.int64)
    answered = np.flatnonzero(codes >= 0)[::-1]  # of several answers at a TTL the first stays
    met[places[answered], ttls[answered]] = codes[answered]
    groups = probes.groupby(places)
    end_ttl, reached = groups["ttl"].max().to_numpy(np.int64), groups["reached"].any().to_numpy(bool)
    met = np.column_stack([met, _steady(np.where(reached, end_ttl, _UNKNOWN))])
    balanced = _balanced(met)
    met[:, balanced] = _UNKNOWN
    columns = [*map(int, ttl_names), _END]
    first_at = groups["sent_at"].first().to_numpy()
    seen: Any = probes[codes >= 0].groupby(["ttl", "address"])["sent_at"].first().items()
    course = Course(
        target=target,
        flow=flow,
        runs=np.asarray(runs, np.int64),
        first_at=first_at,
        last_at=groups["sent_at"].last().to_numpy(),
        end_ttl=end_ttl,
        reached=reached,
        segments=[_segment(met, addresses, columns, *ends) for ends in _unbroken(met)],
        balanced={columns[place] for place in np.flatnonzero(balanced)},
        seen={(int(ttl), str(address)): at for (ttl, address), at in seen},
    )
    _unite(course)
    return course


def _steady(ends: Codes) -> Codes:
    """Return where each run ended, of those that enough others agree with: a lost answer may look like it."""
    places = np.flatnonzero(ends >= 0)
    stretch = np.cumsum(np.diff(ends[places], prepend=_UNKNOWN) != 0)
    steady = np.bincount(stretch)[stretch] >= MOVED_RUNS
    result: Codes = np.full(len(ends), _UNKNOWN, np.int64)
    result[places[steady]] = ends[places[steady]]
    return result


def _balanced(met: Codes) -> npt.NDArray[np.bool_]:
    """Return for each TTL whether its address differs from run to run as by chance."""
    previous = _previous(met)
    both = (met >= 0) & (previous >= 0)
    before = np.take_along_axis(met, np.maximum(previous, 0), axis=0)
    switches = (both & (met != before)).sum(axis=0)
    result: npt.NDArray[np.bool_] = switches > np.maximum(BALANCED_LEAST, BALANCED_SHARE * both.sum(axis=0))
    return result


def _previous(met: Codes) -> Codes:
    """Return for each run and TTL the place of the run before that has an answer there, -1 without one."""
    rows = np.where(met >= 0, np.arange(len(met))[:, None], -1)
    latest = np.maximum.accumulate(rows, axis=0)
    return np.vstack([np.full((1, met.shape[1]), -1), latest[:-1]])


def _unbroken(met: Codes) -> list[tuple[int, int]]:
    """Return the first and last run of each stretch without a contradiction."""
    previous = _previous(met)
    before = np.take_along_axis(met, np.maximum(previous, 0), axis=0)
    contradicts = (met >= 0) & (previous >= 0) & (met != before)
    starts = [0]
    for run in np.flatnonzero(contradicts.any(axis=1)):
        if (contradicts[run] & (previous[run] >= starts[-1])).any():
            starts.append(int(run))
    return [(first, last - 1) for first, last in zip(starts, [*starts[1:], len(met)], strict=True)]


def _segment(met: Codes, addresses: Any, ttls: list[int], first: int, last: int) -> Segment:
    known = met[first : last + 1].max(axis=0)  # one address or none in each column
    codes = {ttl: int(code) for ttl, code in zip(ttls, known, strict=True) if code >= 0}
    pattern = {ttl: str(addresses[code] if ttl else code) for ttl, code in codes.items()}
    return Segment(first, last, pattern)


def _unite(course: Course) -> None:
    """Give segments that can be the same path its number, and the path all that any of them knows."""
    for segment in course.segments:
        same = (n for n, known in enumerate(course.patterns) if not differing(known, segment.pattern))
        segment.path = next(same, len(course.patterns))
        if segment.path == len(course.patterns):
            course.patterns.append({})
        course.patterns[segment.path].update(segment.pattern)
        if course.reached[segment.first : segment.last + 1].any():
            _end_once(course.patterns[segment.path])


def _end_once(pattern: Pattern) -> None:
    """Let the destination be in the path only where it is met first: behind a lost answer it is met again."""
    end = pattern[max(pattern)]
    while pattern.get(max(pattern) - 1) == end:
        del pattern[max(pattern)]


def differing(one: Pattern, other: Pattern) -> list[int]:
    """Return the TTLs at which the two have different hops, in order.

    Where one goes on silently behind the end of the other, that is another hop, too.
    """
    ttls = {ttl for ttl in one.keys() & other.keys() if one[ttl] != other[ttl]}
    if _END in ttls:
        ttls |= {min(int(one[_END]), int(other[_END]))}
    return sorted(ttls - {_END})


def path_id(pattern: Pattern) -> str:
    """Return eight hexadecimal digits that tell the path."""
    return hashlib.blake2b(as_text(pattern).encode(), digest_size=4).hexdigest()


def as_text(pattern: Pattern) -> str:
    """Return the hops in words, an asterisk for each that is not known."""
    return " ".join(pattern.get(ttl, "*") for ttl in range(1, max(pattern, default=0) + 1)) or "*"
