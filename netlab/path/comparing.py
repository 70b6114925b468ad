"""`netlab.path.compare`: what is different between two times, or two ways."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pandas as pd

from netlab.frames import Gap, Missing, known_gaps
from netlab.path import extent, segments
from netlab.path.extent import in_order, of_one_source
from netlab.path.interruption import was_interrupted
from netlab.path.sides import Row, Side, decide, rows_of, sides
from netlab.schemas import COMPARISON

_COLUMNS = [*segments.COLUMNS, "rtt_ms"]
_TOO_FEW = "too few answers to tell whether the {} changed"


def compare(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Say what is different between two sets of hops.

    Parameters
    ----------
    before, after
        What `netlab.traceroute` or a monitor returned, each of one time. Eight answers of a hop on each side
        suffice to tell whether its RTT changed, on a path of any usual length; three never do.

    Returns
    -------
    DataFrame
        One row per target and hop, as in `netlab.schemas.COMPARISON`: whether it is at the same TTL, moved,
        appeared or vanished; the medians of its RTT and their difference, with the p-value of the
        Mann-Whitney test; its loss with the p-value of Fisher's exact test. `rtt_changed` and `loss_changed`
        hold where p is below 0.01 divided by the number of such tests (Bonferroni), and the RTT is 0.1 ms
        off; they are missing where so few answers cannot have such a p. A loss is that of the hop's TTL.
        `attrs["summary"]` says it in a few lines. Give both calls of `traceroute` one `source_port`: the
        paths of two flows may differ at any time.

    Raises
    ------
    BadInput
        If one lacks columns of a trace, or is of several hosts or namespaces.

    Notes
    -----
    A hop's RTT is that of its own answers, which routers make when they have time: what counts for traffic is
    a shift that all later hops have, too.

    Examples
    --------
    >>> import netlab
    >>> hops = netlab.traceroute("127.0.0.1", queries=5)
    >>> netlab.path.compare(hops, hops).attrs["summary"]
    '127.0.0.1: same path, round trip and loss'
    """
    ordered = [in_order(hops, _COLUMNS, "compare()") for hops in (before, after)]
    for hops in (before, after):
        of_one_source(hops, "compare()")
    olds, news = map(sides, ordered)
    wires = [_flows(hops) for hops in (before, after)]
    table: list[tuple[Any, ...]] = []
    lines = []
    every: list[Row] = []
    cut = [was_interrupted(hops) for hops in (before, after)]
    for target in sorted(olds.keys() | news.keys()):
        old, new = (found.get(target) or Side() for found in (olds, news))
        old.cut, new.cut = cut
        old.flows, new.flows = (flows.get(target, frozenset()) for flows in wires)
        rows = list(rows_of(old, new))
        decide(rows)
        every += rows
        lines.append(f"{target}: {_in_words(old, new, rows)}")
        table += ((target, *_cells(row)) for row in rows)
    columns: Any = list(zip(*table, strict=True)) or [()] * len(COMPARISON.names)
    frame = COMPARISON.frame(dict(zip(COMPARISON.names, map(list, columns), strict=True)))
    given = [*known_gaps(before), *known_gaps(after)]
    frame.attrs["coverage"] = [*given, *map(asdict, _undecided(every))]
    frame.attrs["summary"] = "\n".join(lines)
    return frame


def _flows(hops: pd.DataFrame) -> dict[str, frozenset[tuple[Any, ...]]]:
    """Return what tells the flows to each target from all others."""
    plain = extent.wires(hops).drop_duplicates().astype(object)
    found: dict[str, set[tuple[Any, ...]]] = {}
    for wire in plain.where(plain.notna(), None).itertuples(index=False, name=None):
        found.setdefault(str(wire[0]), set()).add(wire)
    return {target: frozenset(wires) for target, wires in found.items()}


def _undecided(rows: Iterable[Row]) -> list[Missing]:
    rtts, losses = _unsure(rows)
    found = [
        Missing("hops", Gap.INCOMPLETE, rtts, _TOO_FEW.format("round trip")),
        Missing("hops", Gap.INCOMPLETE, losses, _TOO_FEW.format("loss")),
    ]
    return [gap for gap in found if gap.count]


def _unsure(rows: Iterable[Row]) -> tuple[int, int]:
    """Return of how many rows it is open whether the round trip changed, and of how many the loss."""
    rows = list(rows)
    rtts = sum(row.rtt_changed is None and not math.isnan(row.rtt_p) for row in rows)
    return rtts, sum(row.loss_changed is None and not math.isnan(row.loss_p) for row in rows)


def _cells(row: Row) -> tuple[Any, ...]:
    numbers = (*row.rtts_ms, row.shift_ms, row.rtt_p)
    return (
        *(row.address, row.difference.value, *row.ttls),
        *(None if math.isnan(number) else number for number in numbers),
        row.rtt_changed,
        *row.losses,
        None if math.isnan(row.loss_p) else row.loss_p,
        row.loss_changed,
        *(each[1] if each else None for each in row.probes),
    )


def _in_words(old: Side, new: Side, rows: list[Row]) -> str:
    parts = [_path_in_words(old, new)]
    ends = [row for row in rows if row.address is not None and row.address == new.end]
    end = max(ends, key=lambda row: (not math.isnan(row.rtt_p), (row.probes[1] or (0, 0))[1]), default=None)
    parts += _shift_in_words(old, rows, end)
    parts += _loss_in_words(rows, end)
    if old.end is None and new.end is None:
        parts += _unsure_in_words(rows)
    elif end is not None:
        parts += _unsure_in_words([end])
    if parts == ["same path"]:
        return "same path, round trip and loss"
    return "; ".join(parts)


def _path_in_words(old: Side, new: Side) -> str:
    if (not old.pattern and old.cut) or (not new.pattern and new.cut):
        return "nothing was heard before an interruption"
    if not old.pattern or not new.pattern:
        return "nothing answered before" if new.pattern else "nothing answers now"
    if old.end != new.end and None in {old.end, new.end}:
        reached = "reached now, and not before" if new.end else "not reached any more"
        cut = new.cut if old.end else old.cut
        return "the target is not reached in what was interrupted" if cut else f"the target is {reached}"
    ttls = segments.differing(old.pattern, new.pattern)
    if not ttls:
        return "same path"
    where = f"TTL {ttls[0]}" if len(ttls) == 1 else f"TTL {ttls[0]} to {ttls[-1]}"
    paths = f"({segments.as_text(old.pattern)} → {segments.as_text(new.pattern)})"
    why = "" if old.flows & new.flows else " of another flow, as a load balancer may have it"
    return f"another path at {where} {paths}{why}"


def _shift_in_words(old: Side, rows: list[Row], end: Row | None) -> list[str]:
    """Say how much longer the way to the end takes, and from which hop on all have that shift."""
    changed = [row for row in rows if row.rtt_changed]
    tested = [row for row in rows if row.rtt_changed is not None]
    if end is not None and end.rtt_changed:
        first = _first_of_shift(tested, end)
        where = "" if first is end else f", from TTL {first.ttls[1]} ({first.address}) on"
        before, after = end.rtts_ms
        return [f"round trip {before:.3g} → {after:.3g} ms ({end.shift_ms:+.3g} ms{where})"]
    if not changed:
        return []
    several = f"RTT of {len(changed)} hops changed"
    if end is not None and end.rtt_changed is False:
        return [f"{several}, but not the end's"]
    if tested[-1].rtt_changed:
        first = _first_of_shift(tested, tested[-1])
        several += f", from TTL {first.ttls[1]} ({first.address}) on"
    return [several, "the target does not answer"] if end is None and old.end is None else [several]


def _first_of_shift(tested: list[Row], last: Row) -> Row:
    first = last
    for row in reversed(tested):
        if not row.rtt_changed or row.shift_ms * last.shift_ms < 0:
            break
        first = row
    return first


def _unsure_in_words(rows: list[Row]) -> list[str]:
    names = [name for name, count in zip(("round trip", "loss"), _unsure(rows), strict=True) if count]
    return [_TOO_FEW.format(" or the ".join(names))] if names else []


def _loss_in_words(rows: list[Row], end: Row | None) -> list[str]:
    changed = [row for row in rows if row.loss_changed]
    if end is not None and end.loss_changed:
        before, after = end.losses
        return [f"loss {before:.1%} → {after:.1%} at the end"]
    return [f"loss changed at {len(changed)} hops, but not at the end"] if changed else []
