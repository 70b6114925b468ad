"""Runs as the frame of hops, with an account of what it lacks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from netlab.errors import NetlabError
from netlab.frames import Gap, Missing, concat
from netlab.path import interruption, quotes
from netlab.path.origin import COLUMNS, Origin
from netlab.path.quotes import Quoted
from netlab.path.state import Answer, Probe, Run, timing
from netlab.path.target import Target
from netlab.schemas import HOPS

_USUAL_TTLS = (64, 128, 255)  # that packets start with: Linux and BSD; Windows; most routers
# By the TTL of an answer: how many hops away it started, if with the next of the usual ones.
_RETURN_HOPS = {
    ttl: next(usual for usual in _USUAL_TTLS if ttl <= usual) - ttl + 1
    for ttl in range(1, _USUAL_TTLS[-1] + 1)
}
_UNQUOTED = Quoted(labels=())
_SILENCE: Any = Answer._make([None] * len(Answer._fields))


@dataclass(slots=True, kw_only=True)
class Traced:
    """All runs to one target. `ports` are those of each flow; `error` says why there is no more."""

    name: str
    target: Target | None
    origin: Origin | None = None
    tos: int = 0
    method: str = "raw"
    ports: Mapping[int, tuple[int | None, int | None]] = field(default_factory=dict)
    runs: Sequence[Run] = ()
    error: NetlabError | None = None

    @property
    def sent(self) -> bool:
        """Whether there are probes to tell of."""
        return any(run.reported() for run in self.runs)


def frame(
    runs: Sequence[Run],
    target: Target,
    protocol: str,
    ports: Mapping[int, tuple[int | None, int | None]],
    *,
    origin: Origin | None = None,
    method: str = "raw",
    missing: Sequence[Missing] = (),
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return one row per probe up to the end of the path, by run, TTL and attempt.

    *ports* has the source and the destination port of each flow.
    """
    traced = Traced(name=target.name, target=target, origin=origin, method=method, ports=ports, runs=runs)
    return frame_of([traced], protocol, missing=missing, names=names)


def frame_of(
    traces: Sequence[Traced],
    protocol: str,
    *,
    missing: Sequence[Missing] = (),
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the rows of several targets, and after each target's the row that says its error."""
    reported = [
        [(run.number, probe, answer) for run in traced.runs for probe, answer in run.reported()]
        for traced in traces
    ]
    rows = list(itertools.chain.from_iterable(reported))
    counts = list(map(len, reported))
    times = [(None, None) if a is None else _timed(p, a) for _, p, a in rows]
    sent = _columns(Probe, [probe for _, probe, _ in rows])
    heard = _columns(Answer, [answer or _SILENCE for *_, answer in rows])
    seen = _columns(Quoted, [quoted or _UNQUOTED for quoted in heard["quoted"]])
    ports = [
        traced.ports[probe.flow] for traced, its in zip(traces, reported, strict=True) for _, probe, _ in its
    ]

    def each(value: Callable[[Traced], Any]) -> list[Any]:
        """Return what is the same in all rows of a trace, for every row."""
        whole: list[Any] = []
        for traced, count in zip(traces, counts, strict=True):
            whole += [value(traced)] * count
        return whole

    data: dict[str, Any] = {name: each(partial(_of_origin, name=name)) for name in COLUMNS} | {
        "target": each(lambda traced: traced.name),
        "target_address": each(lambda traced: getattr(traced.target, "address", None)),
        "protocol": [protocol] * len(rows),
        "family": each(lambda traced: getattr(traced.target, "family", None)),
        "method": each(lambda traced: traced.method),
        "flow": sent["flow"],
        "source_port": [source_port for source_port, _ in ports],
        "port": [port for _, port in ports],
        "run": [number for number, *_ in rows],
        "ttl": sent["ttl"],
        "attempt": sent["attempt"],
        "address": heard["address"],
        "name": list(map((names or {}).get, heard["address"])),
        "rtt_ms": [rtt_ms for rtt_ms, _ in times],
        "reply": heard["reply"],
        "reached": [None if answer is None else answer.reached for *_, answer in rows],
        "sent_at": np.array(sent["wall_ns"], np.int64),
        "reply_ttl": heard["ttl"],
        "dscp": each(lambda traced: traced.tos >> 2),
        "ecn": each(lambda traced: traced.tos & 3),
        "return_hops": list(map(_RETURN_HOPS.get, heard["ttl"])),
        "reply_id": heard["identification"],
        "clock": [clock for _, clock in times],
        "quoted_ttl": seen["ttl"],
        "quoted_dscp": [None if tos is None else tos >> 2 for tos in seen["tos"]],
        "quoted_ecn": [None if tos is None else tos & 3 for tos in seen["tos"]],
        "rewritten": [
            None if parts is None else ", ".join(parts) or quotes.NOTHING for parts in seen["changed"]
        ],
        "mpls": list(map(quotes.as_text, seen["labels"])),
    }
    unsure = dict.fromkeys(gap for traced in traces if traced.origin for gap in traced.origin.missing())
    lacking = gaps(run for traced in traces for run in traced.runs)
    lacking += _doubtful(data["target_address"], heard["address"], data["reached"])
    found = HOPS.frame(data, missing=[*lacking, *unsure, *missing])
    failed = [traced for traced in traces if traced.error is not None]
    return _with_errors(found, failed, [traced.name for traced in traces], protocol) if failed else found


def _doubtful(targets: list[Any], addresses: list[Any], reached: list[Any]) -> list[Missing]:
    detail = "port-unreachable came from another address: of the target, or of a firewall that rejects"
    count = sum(
        bool(there) and address != target
        for target, address, there in zip(targets, addresses, reached, strict=True)
    )
    return [Missing("reached", Gap.APPROXIMATE, count, detail)] if count else []


def _of_origin(traced: Traced, *, name: str) -> str | int | None:
    return getattr(traced.origin, name, None)


def _columns(kind: type[tuple[Any, ...]], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Return each field of named tuples of one *kind* as a column."""
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    values = zip(*rows, strict=True) if rows else itertools.repeat(())
    return {name: list(column) for name, column in zip(names, values, strict=False)}


def _timed(probe: Probe, answer: Answer) -> tuple[float, str]:
    nanoseconds, clock = timing(probe, answer)
    return nanoseconds / 10**6, clock.value


def _with_errors(
    found: pd.DataFrame, failed: Sequence[Traced], order: Sequence[str], protocol: str
) -> pd.DataFrame:
    errors = HOPS.frame(
        {
            "target": [traced.name for traced in failed],
            "target_address": [traced.target.address if traced.target else None for traced in failed],
            "family": [traced.target.family if traced.target else None for traced in failed],
            "protocol": [protocol] * len(failed),
            "error": [str(traced.error) for traced in failed],
        }
    )
    rows = concat([found, errors])
    place = {name: number for number, name in reversed(list(enumerate(order)))}
    ordered = rows.iloc[np.argsort(rows["target"].map(place).to_numpy(), kind="stable")].reset_index(
        drop=True
    )
    ordered.attrs = rows.attrs
    return ordered


def gaps(runs: Iterable[Run]) -> list[Missing]:
    """Return what the runs do not tell although the network might have."""
    runs = list(runs)
    counted = [
        Missing(
            "late answers",
            Gap.INCOMPLETE,
            sum(run.given_up_early for run in runs),
            "silent probes waited for less than timeout_s, because later hops had answered long before",
        ),
        Missing(
            "answers of the target",
            Gap.UNSEEN,
            sum(run.unplaced for run in runs if run.end_ttl is None),
            "the target answered without saying which probe it is for, so its hop is not known",
        ),
        Missing(
            "answers of the target",
            Gap.APPROXIMATE,
            sum(run.placed for run in runs),
            "they do not say which probe they are for and were given to the only one under way",
        ),
        Missing(
            "answers of routers",
            Gap.UNSEEN,
            sum(run.too_short for run in runs),
            "they quote too little to say which probe they are for, so their hop is not known",
        ),
        Missing(
            "answers of routers",
            Gap.APPROXIMATE,
            sum(run.short_placed for run in runs),
            "they quote too little to say which probe they are for and were given to the only one under way",
        ),
        Missing(
            interruption.RUNS,
            Gap.INCOMPLETE,
            sum(run.cut_short for run in runs),
            "probes under way are left out, and the rest was not sent",
        ),
    ]
    return [gap for gap in counted if gap.count]
