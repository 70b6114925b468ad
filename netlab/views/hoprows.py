"""What a picture of hops says: a row for each address at a TTL, and what the probes were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.path import looping
from netlab.views.text import DASH, counted, legible, share

_MOST_ROWS = 64
_SILENT_RUN = 3  # so many silent TTLs in a row become one line


@dataclass(frozen=True, slots=True)
class Row:
    """An address at a TTL, or silent TTLs."""

    ttl: str
    address: str
    name: str
    rtts_ms: npt.NDArray[np.float64]
    loss: str
    lost: int
    reached: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """One target's rows and what is said above them."""

    title: str
    notes: list[str]
    rows: list[Row]


def described(probes: pd.DataFrame) -> Trace:
    """Return what is said of the *probes* to one target."""
    every = list(_rows(probes))
    rows = every[:_MOST_ROWS]
    first = probes.iloc[0]
    notes = [_counts(probes), _how(probes)]
    loop = looping.in_probes(probes)
    if loop is not None:
        notes.append(loop.in_words())
    if len(rows) < len(every):
        notes.append(cut(len(rows), len(every), "rows"))
    return Trace(f"Round-trip time per hop to {destination(first.target, first.target_address)}", notes, rows)


def destination(target: Any, address: Any) -> str:
    """Return what was traced in words: the name with its address, or the address alone."""
    known = [legible(text, 60) for text in (target, address) if not pd.isna(text)]
    match known:
        case [name, number] if name != number:
            return f"{name} ({number})"
        case [name, *_]:
            return name
        case _:
            return "an unnamed target"


def _counts(probes: pd.DataFrame) -> str:
    lost = int(probes["address"].isna().sum())
    reached = probes.loc[probes["reached"].fillna(False), "ttl"]  # noqa: FBT003
    ttls = DASH.join(map(str, sorted({reached.min(), reached.max()}))) if len(reached) else ""
    parts = [
        counted(len(probes), "probe"),
        counted(probes["run"].nunique(), "run"),
        counted(probes["flow"].nunique(), "flow"),
        f"{lost} without answer ({share(lost, len(probes))})",
        f"◆ destination reached at TTL {ttls}" if ttls else "destination not reached",
    ]
    return " · ".join(filter(None, parts))


def _how(probes: pd.DataFrame) -> str:
    protocols = ", ".join(sorted(probes["protocol"].dropna().unique()))
    ports = probes["port"].dropna().unique()
    started = probes["sent_at"].min()
    parts = [
        f"{legible(protocols, 30)} port {ports[0]}" if len(ports) == 1 else legible(protocols, 30),
        "" if pd.isna(started) else f"{started:%Y-%m-%d %H:%M:%S} UTC",
    ]
    return " · ".join(filter(None, parts))


def _rows(probes: pd.DataFrame) -> Iterator[Row]:
    hops = [(ttl, probes[probes["ttl"] == ttl]) for ttl in sorted(probes["ttl"].unique())]
    for silent, run in groupby(hops, key=lambda hop: bool(hop[1]["address"].isna().all())):
        stretch = list(run)
        if silent and len(stretch) >= _SILENT_RUN:
            yield _silent(f"{stretch[0][0]}{DASH}{stretch[-1][0]}", sum(len(part) for _, part in stretch))
        else:
            for ttl, part in stretch:
                yield from [_silent(str(ttl), len(part))] if silent else _answering(ttl, part)


def _silent(ttl: str, probes: int) -> Row:
    return Row(ttl, "no answer", "", np.empty(0), _loss(probes, probes), probes, reached=False)


def _answering(ttl: int, probes: pd.DataFrame) -> Iterator[Row]:
    """Yield a row for each address at *ttl*, most answers first; the loss belongs to the TTL as a whole."""
    lost = int(probes["address"].isna().sum())
    answers = probes.dropna(subset="address")
    for place, address in enumerate(answers["address"].value_counts().index):
        mine = answers[answers["address"] == address]
        names = mine["name"].dropna()
        yield Row(
            str(ttl) if place == 0 else "",
            legible(address, 60),
            legible(names.iloc[0], 42) if len(names) else "",
            mine["rtt_ms"].dropna().to_numpy(np.float64),
            _loss(lost, len(probes)) if place == 0 else "",
            lost if place == 0 else 0,
            reached=bool(mine["reached"].any()),
        )


def _loss(lost: int, probes: int) -> str:
    return f"{share(lost, probes)} ({lost}/{probes})" if lost else share(lost, probes)


def cut(kept: int, of: int, what: str) -> str:
    """Return how many of *of* were kept, in words; empty where all were."""
    return f"showing the first {kept} of {of} {what}" if kept < of else ""
