"""Which path each run met, and when it became another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from netlab.frames import known_gaps
from netlab.path.extent import in_order
from netlab.path.segments import COLUMNS, Course, Pattern, as_text, courses, differing, path_id
from netlab.schemas import PATH_CHANGES, PATH_RUNS


class Change(StrEnum):
    """Why a flow's path is another than before."""

    ROUTE = "route"  # an address that no flow had met at that TTL
    REMAP = "remap"  # only addresses that other flows met there before: a load balancer moved the flow
    RETURN = "return"  # a path that this flow had earlier
    UNKNOWN = "unknown"  # a new address, and no other flow that could have met it


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChange:
    """A flow's path became another at `at`, from `run` on; `last_at` is when the old one was last probed."""

    at: Any
    last_at: Any
    run: int
    kind: Change
    ttls: list[int]
    before: Pattern
    after: Pattern

    @property
    def ttls_with_new_ends(self) -> list[int]:
        """The TTLs that have another hop, and those that only the longer path has behind another end."""
        shorter, longer = sorted((max(self.before), max(self.after)))
        return [*self.ttls, *(range(shorter + 1, longer + 1) if self.ttls[-1] == shorter else ())]


def path_runs(hops: pd.DataFrame) -> pd.DataFrame:
    """Tell which path each run met.

    A hop that did not answer may be any: a lost answer makes no other path. Two runs are on the same path if
    they agree wherever both know the hop, with no contradiction in between. Where a load balancer sends each
    packet its own way, the hop counts as unknown.

    Parameters
    ----------
    hops
        What `netlab.traceroute` or a monitor returned, or several of those concatenated, whose runs are then
        counted through. Calls without a `source_port` are of several flows, which may go several ways: these
        are counted through, too.

    Returns
    -------
    DataFrame
        One row per target, flow and run, as in `netlab.schemas.PATH_RUNS`. `path` is a hash of the hops: the
        same in another capture of the same hops, and another once a hop that had been silent answers.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace.

    Examples
    --------
    >>> import netlab
    >>> runs = netlab.path.path_runs(netlab.traceroute("127.0.0.1", runs=3))
    >>> runs["path"].nunique(), runs["hops"].tolist()
    (1, ['127.0.0.1', '127.0.0.1', '127.0.0.1'])
    """
    rows: list[tuple[Any, ...]] = []
    for course in courses(in_order(hops, COLUMNS, "path_runs()")):
        for segment in course.segments:
            pattern = course.patterns[segment.path]
            texts = (path_id(pattern), as_text(pattern))
            places = slice(segment.first, segment.last + 1)
            ends = zip(course.end_ttl[places], course.reached[places], strict=True)
            starts = zip(course.runs[places], course.first_at[places], strict=True)
            rows += (
                (course.target, course.flow, *start, *texts, *end)
                for start, end in zip(starts, ends, strict=True)
            )
    return _frame(PATH_RUNS, rows, hops)


def path_changes(hops: pd.DataFrame) -> pd.DataFrame:
    """Tell when a flow's path became another, from what to what.

    Parameters
    ----------
    hops
        What `netlab.traceroute` or a monitor returned, or several of those concatenated: with the same
        `source_port`, since another port is another flow, whose way may always have been another. Several
        flows tell a load balancer that moved a flow (`remap`) from another route.

    Returns
    -------
    DataFrame
        One row per change, as in `netlab.schemas.PATH_CHANGES`, in order of time. `kind` is "remap" if other
        flows had met all the new addresses at those TTLs before this flow was last on its old path, "return"
        if this flow had the whole path before, "route" if an address is new to all of several flows, and
        "unknown" if there is one flow only. What paths are the same is said at `netlab.path.path_runs`; that
        the end has moved further away, behind a hop that does not answer, takes eight runs to tell.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace.

    Examples
    --------
    >>> import netlab
    >>> len(netlab.path.path_changes(netlab.traceroute("127.0.0.1", runs=3)))
    0
    """
    found = courses(in_order(hops, COLUMNS, "path_changes()"))
    rows = [_row(course, change) for course in found for change in changes(course, found)]
    rows.sort(key=lambda row: row[2])
    return _frame(PATH_CHANGES, rows, hops)


def _row(course: Course, change: PathChange) -> tuple[Any, ...]:
    return (
        *(course.target, course.flow, change.at, change.last_at, change.run, change.kind.value),
        *(change.ttls[0], change.ttls[-1], path_id(change.before), path_id(change.after)),
        *(as_text(change.before), as_text(change.after)),
    )


def changes(course: Course, all_courses: list[Course]) -> Iterator[PathChange]:
    """Yield the changes of a flow's path; the other flows tell why."""
    others = [other for other in all_courses if other.target == course.target and other is not course]
    for number, after in enumerate(course.segments[1:], 1):
        before = course.segments[number - 1]
        ttls = differing(before.pattern, after.pattern)
        last_at = course.last_at[before.last]
        yield PathChange(
            at=course.first_at[after.first],
            last_at=last_at,
            run=int(course.runs[after.first]),
            kind=_kind(course, number, [(ttl, after.pattern.get(ttl, "")) for ttl in ttls], others, last_at),
            ttls=ttls,
            before=course.patterns[before.path],
            after=course.patterns[after.path],
        )


def _kind(
    course: Course, number: int, new: list[tuple[int, str]], others: list[Course], last_at: Any
) -> Change:
    known = [any(key in other.seen and other.seen[key] <= last_at for other in others) for key in new]
    if all(known):
        return Change.REMAP
    if any(course.segments[number].path == earlier.path for earlier in course.segments[:number]):
        return Change.RETURN
    return Change.ROUTE if others else Change.UNKNOWN


def _frame(schema: Any, rows: list[tuple[Any, ...]], hops: pd.DataFrame) -> pd.DataFrame:
    columns: list[Any] = list(zip(*rows, strict=True)) or [()] * len(schema.names)
    frame: pd.DataFrame = schema.frame(dict(zip(schema.names, map(list, columns), strict=True)))
    frame.attrs["coverage"] = known_gaps(hops)
    return frame
