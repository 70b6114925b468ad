"""`netlab.path.compare`: what is different between two times, or two ways."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from netlab.path import extent, segments
from netlab.path.extent import in_order, of_one_source, within_path
from netlab.path.segments import Pattern
from netlab.path.significance import Reals, fisher, mann_whitney
from netlab.schemas import COMPARISON

ALPHA = 0.01  # how often a comparison of two alike finds any difference in RTT, or in loss
LEAST_SHIFT_MS = 0.1

_COLUMNS = [*segments.COLUMNS, "rtt_ms"]


class Difference(StrEnum):
    """What became of a hop."""

    SAME = "same"
    MOVED = "moved"
    APPEARED = "appeared"
    VANISHED = "vanished"


@dataclass(slots=True)
class _Side:
    """One of the two: the path that most runs met, RTTs by address, lost and all probes by TTL, its flows."""

    pattern: Pattern = field(default_factory=dict)
    rtts_ms: dict[str, Reals] = field(default_factory=dict)
    ttls: dict[str, int] = field(default_factory=dict)
    probes: dict[int, tuple[int, int]] = field(default_factory=dict)
    end: str | None = None
    flows: frozenset[tuple[Any, ...]] = frozenset()

    @classmethod
    def of(cls, probes: pd.DataFrame) -> _Side:
        """Read one target's probes, in order."""
        if probes.empty:
            return cls()
        weights: dict[str, tuple[int, Pattern]] = {}
        for flow in segments.courses(probes):
            for segment in flow.segments:
                pattern = flow.patterns[segment.path]
                text = segments.as_text(pattern)
                runs, _ = weights.get(text, (0, pattern))
                weights[text] = (runs + segment.last - segment.first + 1, pattern)
        probes = within_path(probes)
        answered = probes[probes["address"].notna()]
        ttls = answered.groupby("address")["ttl"].agg(lambda values: values.mode().iloc[0])
        lost = probes["address"].isna().groupby(probes["ttl"]).agg(["sum", "size"])
        reached = answered.loc[answered["reached"].fillna(value=False), "address"]
        rtts: Any = answered.groupby("address")["rtt_ms"]
        return cls(
            pattern=max(weights.values(), key=lambda pair: pair[0])[1],
            rtts_ms={str(a): r.to_numpy(np.float64) for a, r in rtts},
            ttls={str(address): int(ttl) for address, ttl in ttls.items()},
            probes={int(str(ttl)): (int(row["sum"]), int(row["size"])) for ttl, row in lost.iterrows()},
            end=str(reached.mode().iloc[0]) if len(reached) else None,
        )


@dataclass(slots=True)
class _Row:
    address: str | None
    difference: Difference
    ttls: tuple[int | None, int | None]
    rtts_ms: tuple[float, float]
    rtt_p: float
    probes: tuple[tuple[int, int] | None, tuple[int, int] | None]
    loss_p: float
    rtt_changed: bool | None = None
    loss_changed: bool | None = None

    @property
    def shift_ms(self) -> float:
        return self.rtts_ms[1] - self.rtts_ms[0]

    @property
    def losses(self) -> tuple[float | None, ...]:
        return tuple(each[0] / each[1] if each else None for each in self.probes)


def compare(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Say what is different between two sets of hops.

    Parameters
    ----------
    before, after
        What `netlab.traceroute` or a monitor returned, each of one time. A hop needs four answers on each
        side, or more, for a shift of its RTT to show.

    Returns
    -------
    DataFrame
        One row per target and hop, as in `netlab.schemas.COMPARISON`: whether it is at the same TTL, moved,
        appeared or vanished; the medians of its RTT and their difference, with the p-value of the
        Mann-Whitney test; its loss with the p-value of Fisher's exact test. `rtt_changed` and `loss_changed`
        hold where p is below 0.01 divided by the number of such tests (Bonferroni), and the RTT is 0.1 ms
        off. A loss is that of the hop's TTL. `attrs["summary"]` says it in a few lines. Give both calls of
        `traceroute` one `source_port`: the paths of two flows may differ at any time.

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
    sides = [in_order(hops, _COLUMNS, "compare()") for hops in (before, after)]
    for hops in (before, after):
        of_one_source(hops, "compare()")
    targets = sorted({str(target) for side in sides for target in side["target"].unique()})
    table: list[tuple[Any, ...]] = []
    lines = []
    for target in targets:
        old, new = (_Side.of(side[side["target"] == target]) for side in sides)
        old.flows, new.flows = (_flows(hops[hops["target"] == target]) for hops in (before, after))
        rows = list(_rows(old, new))
        _decide(rows)
        lines.append(f"{target}: {_in_words(old, new, rows)}")
        table += ((target, *_cells(row)) for row in rows)
    columns: Any = list(zip(*table, strict=True)) or [()] * len(COMPARISON.names)
    frame = COMPARISON.frame(dict(zip(COMPARISON.names, map(list, columns), strict=True)))
    frame.attrs["coverage"] = [*before.attrs.get("coverage", []), *after.attrs.get("coverage", [])]
    frame.attrs["summary"] = "\n".join(lines)
    return frame


def _flows(hops: pd.DataFrame) -> frozenset[tuple[Any, ...]]:
    plain = extent.wires(hops).drop_duplicates().astype(object)
    return frozenset(plain.where(plain.notna(), None).itertuples(index=False, name=None))


def _rows(old: _Side, new: _Side) -> Iterator[_Row]:
    """Yield the hops by TTL, then the TTLs at which nothing answered on either side."""
    places = {address: (old.ttls.get(address), new.ttls.get(address)) for address in old.ttls | new.ttls}
    met = {ttl for pair in places.values() for ttl in pair}
    silent = sorted((old.probes.keys() | new.probes.keys()) - met)
    rows: list[tuple[str | None, tuple[int | None, int | None]]] = [*places.items()]
    rows += [
        (None, (ttl if ttl in old.probes else None, ttl if ttl in new.probes else None)) for ttl in silent
    ]
    for address, ttls in sorted(rows, key=lambda row: row[1][1] or row[1][0] or 0):
        yield _row(address, ttls, old, new)


def _row(address: str | None, ttls: tuple[int | None, int | None], old: _Side, new: _Side) -> _Row:
    rtts = [side.rtts_ms.get(address or "", np.array([])) for side in (old, new)]
    # Where a hop vanished, what its TTL lost since is not its loss.
    probes = tuple(side.probes.get(ttl or 0) for side, ttl in zip((old, new), ttls, strict=True))
    known = probes[0] is not None and probes[1] is not None
    return _Row(
        address=address,
        difference=_difference(*ttls),
        ttls=ttls,
        rtts_ms=(_median(rtts[0]), _median(rtts[1])),
        rtt_p=mann_whitney(*rtts),
        probes=(probes[0], probes[1]),
        loss_p=fisher(*probes[0], *probes[1]) if known else math.nan,  # type: ignore[misc]
    )


def _difference(before: int | None, after: int | None) -> Difference:
    if before is None:
        return Difference.APPEARED
    if after is None:
        return Difference.VANISHED
    return Difference.SAME if before == after else Difference.MOVED


def _median(values: Reals) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _decide(rows: list[_Row]) -> None:
    rtt_tests = [row for row in rows if not math.isnan(row.rtt_p)]
    for row in rtt_tests:
        row.rtt_changed = row.rtt_p < ALPHA / len(rtt_tests) and abs(row.shift_ms) >= LEAST_SHIFT_MS
    loss_tests = [row for row in rows if not math.isnan(row.loss_p)]
    for row in loss_tests:
        row.loss_changed = row.loss_p < ALPHA / len(loss_tests)


def _cells(row: _Row) -> tuple[Any, ...]:
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


def _in_words(old: _Side, new: _Side, rows: list[_Row]) -> str:
    parts = [_path_in_words(old, new)]
    end = next((row for row in rows if row.address is not None and row.address == new.end), None)
    parts += _shift_in_words(rows, end)
    parts += _loss_in_words(rows, end)
    if parts == ["same path"]:
        return "same path, round trip and loss"
    return "; ".join(parts)


def _path_in_words(old: _Side, new: _Side) -> str:
    if not old.pattern or not new.pattern:
        return "nothing answered before" if new.pattern else "nothing answers now"
    if old.end != new.end and None in {old.end, new.end}:
        reached = "reached now, and not before" if new.end else "not reached any more"
        return f"the target is {reached}"
    ttls = segments.differing(old.pattern, new.pattern)
    if not ttls:
        return "same path"
    where = f"TTL {ttls[0]}" if len(ttls) == 1 else f"TTL {ttls[0]} to {ttls[-1]}"
    paths = f"({segments.as_text(old.pattern)} → {segments.as_text(new.pattern)})"
    why = "" if old.flows & new.flows else " of another flow, as a load balancer may have it"
    return f"another path at {where} {paths}{why}"


def _shift_in_words(rows: list[_Row], end: _Row | None) -> list[str]:
    """Say how much longer the way to the end takes, and from which hop on all have that shift."""
    if end is None or not end.rtt_changed:
        changed = [row for row in rows if row.rtt_changed]
        return [f"RTT of {len(changed)} hops changed, but not the end's"] if changed and end else []
    first = end
    for row in reversed([row for row in rows if row.rtt_changed is not None]):
        if not row.rtt_changed or row.shift_ms * end.shift_ms < 0:
            break
        first = row
    where = "" if first is end else f", from TTL {first.ttls[1]} ({first.address}) on"
    before, after = end.rtts_ms
    return [f"round trip {before:.3g} → {after:.3g} ms ({end.shift_ms:+.3g} ms{where})"]


def _loss_in_words(rows: list[_Row], end: _Row | None) -> list[str]:
    changed = [row for row in rows if row.loss_changed]
    if end is not None and end.loss_changed:
        before, after = end.losses
        return [f"loss {before:.1%} → {after:.1%} at the end"]
    return [f"loss changed at {len(changed)} hops, but not at the end"] if changed else []
