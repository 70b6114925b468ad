"""The two sides of a comparison: what each has of a path, and what differs hop by hop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from netlab.path import segments
from netlab.path.extent import has_reached, within_path
from netlab.path.rejections import is_rejected
from netlab.path.segments import Pattern
from netlab.path.significance import Reals, fisher, mann_whitney, mann_whitney_least

ALPHA = 0.01  # how often a comparison of two alike finds any difference in RTT, or in loss
LEAST_SHIFT_MS = 0.1


class Difference(StrEnum):
    """What became of a hop."""

    SAME = "same"
    MOVED = "moved"
    APPEARED = "appeared"
    VANISHED = "vanished"


@dataclass(slots=True)
class Side:
    """One of the two: the path that most runs met, RTTs by address and TTL, lost and all probes by TTL."""

    pattern: Pattern = field(default_factory=dict)
    rtts_ms: dict[tuple[str, int], Reals] = field(default_factory=dict)
    probes: dict[int, tuple[int, int]] = field(default_factory=dict)
    end: str | None = None
    flows: frozenset[tuple[Any, ...]] = frozenset()
    cut: bool = False

    @classmethod
    def of(cls, probes: pd.DataFrame, flows: list[segments.Course]) -> Side:
        """Read one target's probes, as `sides` has them, and the courses of its flows."""
        weights: dict[str, tuple[int, Pattern]] = {}
        for flow in flows:
            for segment in flow.segments:
                pattern = flow.patterns[segment.path]
                text = segments.as_text(pattern)
                runs, _ = weights.get(text, (0, pattern))
                weights[text] = (runs + segment.last - segment.first + 1, pattern)
        answered = probes[probes["address"].notna()]
        lost = probes["address"].isna().groupby(probes["ttl"]).agg(["sum", "size"])
        counts = {int(str(ttl)): (int(row["sum"]), int(row["size"])) for ttl, row in lost.iterrows()}
        reached = answered.loc[answered["has_reached"], "address"]
        rtts: Any = answered.groupby(["address", "ttl"])["rtt_ms"]
        return cls(
            pattern=max(weights.values(), key=lambda pair: pair[0])[1],
            rtts_ms={(str(address), int(ttl)): times.to_numpy(np.float64) for (address, ttl), times in rtts},
            probes=counts | _arrivals(probes, counts),
            end=str(reached.mode().iloc[0]) if len(reached) else None,
        )


def sides(probes: pd.DataFrame) -> dict[str, Side]:
    """Return the side of each target, of probes in order."""
    flows: dict[str, list[segments.Course]] = {}
    for flow in segments.courses(probes):
        flows.setdefault(flow.target, []).append(flow)
    counted = within_path(probes)
    counted = counted.assign(has_reached=has_reached(counted), is_rejected=is_rejected(counted))
    parts = counted.groupby("target", sort=False, observed=True)
    return {str(target): Side.of(part, flows[str(target)]) for target, part in parts}


def _arrivals(probes: pd.DataFrame, counts: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Return lost and all probes at the target's TTL: what somebody turned back has not arrived there.

    A run that is turned back on the way sends nothing further, so that its probes count from where that was.
    """
    reached = probes["has_reached"]
    if not reached.any():
        return {}
    end = int(probes.loc[reached, "ttl"].mode().iloc[0])
    back = probes.loc[probes["is_rejected"], "ttl"]
    lost, every = counts[end]
    return {end: (lost + int((back <= end).sum()), every + int((back < end).sum()))}


@dataclass(slots=True)
class Row:
    """A hop of either side, or a TTL at which nothing answered; the least p are those of so many values."""

    address: str | None
    difference: Difference
    ttls: tuple[int | None, int | None]
    rtts_ms: tuple[float, float]
    rtt_p: float
    rtt_least_p: float
    probes: tuple[tuple[int, int] | None, tuple[int, int] | None]
    loss_p: float
    loss_least_p: float
    rtt_changed: bool | None = None
    loss_changed: bool | None = None

    @property
    def shift_ms(self) -> float:
        """How much longer its round trip is."""
        return self.rtts_ms[1] - self.rtts_ms[0]

    @property
    def losses(self) -> tuple[float | None, ...]:
        """Its share of lost probes on each side."""
        return tuple(each[0] / each[1] if each else None for each in self.probes)


def rows_of(old: Side, new: Side) -> Iterator[Row]:
    """Yield the hops by TTL, then the TTLs at which nothing answered on either side."""
    addresses = dict.fromkeys(address for address, _ in [*old.rtts_ms, *new.rtts_ms])
    places = [(address, ttls) for address in addresses for ttls in _places(address, old, new)]
    met = {ttl for _, pair in places for ttl in pair}
    silent = sorted((old.probes.keys() | new.probes.keys()) - met)
    found: list[tuple[str | None, tuple[int | None, int | None]]] = [*places]
    found += [
        (None, (ttl if ttl in old.probes else None, ttl if ttl in new.probes else None)) for ttl in silent
    ]
    for address, ttls in sorted(found, key=lambda row: row[1][1] or row[1][0] or 0):
        yield _row(address, ttls, old, new)


def _places(address: str, old: Side, new: Side) -> list[tuple[int | None, int | None]]:
    """Return the TTLs at which one address was met before and after, a pair for each hop.

    Where one side met it at several, they are several hops that answer by one name, or paths of several
    lengths: none of them has moved, and each is compared with what was at its own TTL.
    """
    before, after = ({ttl for name, ttl in side.rtts_ms if name == address} for side in (old, new))
    if len(before) <= 1 and len(after) <= 1:
        return [(min(before, default=None), min(after, default=None))]
    return [(ttl if ttl in before else None, ttl if ttl in after else None) for ttl in before | after]


def _row(address: str | None, ttls: tuple[int | None, int | None], old: Side, new: Side) -> Row:
    both = list(zip((old, new), ttls, strict=True))
    rtts = [side.rtts_ms.get((address or "", ttl or 0), np.array([])) for side, ttl in both]
    # Where a hop vanished, what its TTL lost since is not its loss.
    probes = tuple(side.probes.get(ttl or 0) for side, ttl in both)
    loss_p = loss_least_p = math.nan
    if probes[0] is not None and probes[1] is not None:
        loss_p = fisher(*probes[0], *probes[1])
        loss_least_p = fisher(probes[0][1], probes[0][1], 0, probes[1][1])
    return Row(
        address=address,
        difference=_difference(*ttls),
        ttls=ttls,
        rtts_ms=(_median(rtts[0]), _median(rtts[1])),
        rtt_p=mann_whitney(*rtts),
        rtt_least_p=mann_whitney_least(len(rtts[0]), len(rtts[1])),
        probes=(probes[0], probes[1]),
        loss_p=loss_p,
        loss_least_p=loss_least_p,
    )


def _difference(before: int | None, after: int | None) -> Difference:
    if before is None:
        return Difference.APPEARED
    if after is None:
        return Difference.VANISHED
    return Difference.SAME if before == after else Difference.MOVED


def _median(values: Reals) -> float:
    return float(np.median(values)) if len(values) else math.nan


def decide(rows: list[Row]) -> None:
    """Say what changed, as sure as so many tests allow; leave open what so few values cannot tell."""
    rtt_tests = [row for row in rows if not math.isnan(row.rtt_p)]
    for row in rtt_tests:
        level = ALPHA / len(rtt_tests)
        if row.rtt_least_p < level:
            row.rtt_changed = row.rtt_p < level and abs(row.shift_ms) >= LEAST_SHIFT_MS
    loss_tests = [row for row in rows if not math.isnan(row.loss_p)]
    for row in loss_tests:
        level = ALPHA / len(loss_tests)
        if row.loss_least_p < level:
            row.loss_changed = row.loss_p < level
